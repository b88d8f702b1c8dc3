// A server of exchange.thrift: thrift_server PORT; a thread a connection, framed messages.
#include <atomic>
#include <cstdlib>
#include <memory>

#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/server/TThreadedServer.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TServerSocket.h>

#include "Exchange.h"

using namespace apache::thrift;

class Handler : public exchange::ExchangeIf {
public:
  int64_t following(const int64_t number) override { return number + 1; }

  void mirror(exchange::Record& answer, const exchange::Record& record) override {
    if (record.number < 0) {
      exchange::Refused refused;
      refused.why = "negative";
      throw refused;
    }
    answer = record;
    answer.number = -record.number;
  }

  void note(const int64_t number) override { noted_ += number; }

  int64_t noted() override { return noted_; }

private:
  std::atomic<int64_t> noted_{0};
};

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto socket = std::make_shared<transport::TServerSocket>("127.0.0.1", std::atoi(argv[1]));
  server::TThreadedServer server(std::make_shared<exchange::ExchangeProcessor>(std::make_shared<Handler>()), socket,
                                 std::make_shared<transport::TFramedTransportFactory>(),
                                 std::make_shared<protocol::TBinaryProtocolFactory>());
  server.serve();
}
