//! A log and a table in memory, for tests and the simulator.
