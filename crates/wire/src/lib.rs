//! Every shape that crosses the edge, and the one table that turns outcomes into HTTP status and problem type. serde
//! lives here; core types are not serialisable. No I/O.

pub mod catalog;
pub mod cloudevents;
pub mod collected;
pub mod cors;
pub mod csv;
pub mod denial;
pub mod forecast_lines;
pub mod headers;
pub mod problem;
pub mod rescue;
pub mod tokens;
pub mod v1;
