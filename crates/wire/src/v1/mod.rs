//! Our own JSON, version 1.
