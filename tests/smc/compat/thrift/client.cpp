// Calls a server of exchange.thrift.
//   thrift_client PORT check CALLS THREADS: compares every answer
//   thrift_client PORT measure SECONDS:     prints how many calls of `following` a second one connection made
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include "Exchange.h"

using namespace apache::thrift;

struct Connection {
  explicit Connection(int port)
      : transport(std::make_shared<transport::TFramedTransport>(std::make_shared<transport::TSocket>("127.0.0.1", port))),
        client(std::make_shared<protocol::TBinaryProtocol>(transport)) {
    transport->open();
  }

  std::shared_ptr<transport::TFramedTransport> transport;
  exchange::ExchangeClient client;
};

static void expect(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

static exchange::Record make_record(std::mt19937_64& random) {
  exchange::Record record;
  record.number = static_cast<int64_t>(random() >> 1);
  record.text = std::string(random() % 200, static_cast<char>('a' + random() % 26));
  for (uint64_t left = random() % 50; left > 0; left--) record.values.push_back(static_cast<int64_t>(random()));
  for (uint64_t left = random() % 20; left > 0; left--) record.counts[std::to_string(random())] = static_cast<int32_t>(random());
  // Now and then more than a socket takes at once.
  record.payload.resize(random() % 100 == 0 ? 700000 : random() % 3000);
  for (char& byte : record.payload) byte = static_cast<char>(random());
  return record;
}

static void check(int port, long calls, unsigned seed) {
  std::mt19937_64 random(seed);
  Connection connection(port);
  for (long call = 0; call < calls; call++) {
    expect(connection.client.following(call) == call + 1, "following(" + std::to_string(call) + ")");
    exchange::Record record = make_record(random), answer;
    connection.client.mirror(answer, record);
    record.number = -record.number;
    expect(answer == record, "mirror in call " + std::to_string(call));
    connection.client.note(1);
  }
  try {
    exchange::Record record, answer;
    record.number = -1;
    connection.client.mirror(answer, record);
    expect(false, "mirror of a negative number was not refused");
  } catch (const exchange::Refused& refused) {
    expect(refused.why == "negative", "why it was refused");
  }
  connection.transport->close();
}

static int check_all(int port, long calls, unsigned threads) {
  std::vector<std::thread> running;
  std::vector<std::string> failures(threads);
  for (unsigned index = 0; index < threads; index++) {
    running.emplace_back([=, &failures] {
      try {
        check(port, calls, index);
      } catch (const std::exception& error) {
        failures[index] = error.what();
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  int status = 0;
  for (unsigned index = 0; index < threads; index++) {
    if (failures[index].empty()) continue;
    std::cerr << "FAILED: seed " << index << ": " << failures[index] << "\n";
    status = 1;
  }
  Connection last(port);
  int64_t noted = last.client.noted();
  if (status == 0 && noted != static_cast<int64_t>(calls) * threads) {
    std::cerr << "FAILED: " << noted << " notes of " << calls * threads << " arrived\n";
    status = 1;
  }
  return status;
}

static void measure(int port, double seconds) {
  using Clock = std::chrono::steady_clock;
  Connection connection(port);
  int64_t number = 0;
  while (number < 1000) number = connection.client.following(number);
  int64_t first = number;
  auto began = Clock::now();
  std::chrono::duration<double> taken{0};
  while (taken.count() < seconds) {
    for (int call = 0; call < 100; call++) number = connection.client.following(number);
    taken = Clock::now() - began;
  }
  std::cout << static_cast<double>(number - first) / taken.count() << "\n";
}

int main(int argc, char** argv) {
  try {
    std::string what = argc > 2 ? argv[2] : "";
    int port = argc > 1 ? std::atoi(argv[1]) : 0;
    if (what == "check" && argc == 5) return check_all(port, std::atol(argv[3]), static_cast<unsigned>(std::atoi(argv[4])));
    if (what == "measure" && argc == 4) {
      measure(port, std::atof(argv[3]));
      return 0;
    }
    std::cerr << "usage: thrift_client PORT check CALLS THREADS | PORT measure SECONDS\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "FAILED: " << error.what() << "\n";
    return 1;
  }
}
