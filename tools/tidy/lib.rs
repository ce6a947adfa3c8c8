//! The project's rules about its own source, held by tests.
