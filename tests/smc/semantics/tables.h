// Every table of scenarios, for whoever defines TABLE.
TABLE(stream)
TABLE(call)
TABLE(flag)
TABLE(urgent)
TABLE(ready)
TABLE(epoll)
TABLE(closing)
