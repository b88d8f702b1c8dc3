// What the pair of programs beside this file says to each other.
namespace cpp exchange

struct Record {
  1: i64 number
  2: string text
  3: list<i64> values
  4: map<string, i32> counts
  5: binary payload
}

exception Refused {
  1: string why
}

service Exchange {
  i64 following(1: i64 number)
  Record mirror(1: Record record) throws (1: Refused refused)
  oneway void note(1: i64 number)
  i64 noted()
}
