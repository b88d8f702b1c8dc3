// Every table of scenarios, for whoever defines TABLE.
TABLE(stream)
TABLE(call)
