//! The embedded store: one SQLite file, used as a journal first.
//!
//! # What is in the file
//!
//! | table | what | is it truth? |
//! |---|---|---|
//! | `journal` | every entry, in order of arrival, one row each: position, tenant, instant, bytes | yes |
//! | `openings`, `opening_closed`, seal in `meta` | state as of the position behind which the journal was cut | yes |
//! | `keys`, `catalogs`, `meta` | API keys, every catalog that was in force, secret and positions | yes |
//! | `tenants`, `users`, `closed`, `denials` | folds of the journal, each row true for its own position | can be rebuilt |
//! | `history` | what was used in each minute, quarter of an hour and day: a fold of the journal, true for one position in `meta` | can be rebuilt from what is not cut |
//! | `id_*` | which idempotency key is bound to which entry | can be rebuilt |
//!
//! Every row that is not an index of others carries a checksum over its bytes and its place (the small tables excepted).
//!
//! # How a commit happens
//!
//! [`append`](engine::ports::Ledger::append) encodes entries, gives them their positions under one lock and wakes the
//! writer, the only thread that writes. It takes what waits, inserts it into `journal` in one transaction
//! (`synchronous = FULL`: the log is synced before the transaction counts), and wakes those who wait. Nothing else is
//! written in a commit. Folds, ids, retention and the small tables are written between commits, in slices of a few
//! milliseconds.
//!
//! # Recovery
//!
//! After a crash SQLite itself drops what was not committed whole. Opening then copies the log into the file and syncs
//! it (so that what is found is durable, even if the last process died in the middle of a sync), and reads the journal
//! after the last complete checkpoint: every position must be there, every checksum right, or the ledger says what is
//! damaged and does not open. The engine folds that tail into the rows it loads, when it loads them. The rule: **a row is true for its
//! position; whoever folds entries into it skips those at or before that position.** So a crash between two slices of a
//! checkpoint folds nothing twice.
//!
//! After a failed write the ledger is unwritable until it is [reopened](engine::ports::Ledger::reopen): what was in
//! doubt is then read from the disk, where it either is or is not.

mod backup;
mod backup_folds;
mod backup_history;
mod buckets;
mod checkpoint;
mod closed;
mod denials;
pub(crate) mod errors;
pub(crate) mod files;
mod fleet;
mod forecasts;
mod history;
pub mod ids;
mod ledger;
mod linger;
mod log;
mod merge;
#[cfg(feature = "postgres")]
pub(crate) mod moving;
#[cfg(feature = "postgres")]
mod moving_write;
mod openings;
mod queue;
mod reads;
mod recover;
mod retain;
mod running;
mod schema;
mod small;
mod snapshots;
mod verify;
mod verify_part;
mod writer;

pub use crate::verify::{Progress, VerifyReport};
pub use backup::{BackupReport, backup};
pub use ledger::{SqliteLedger, SqliteOptions};
pub use verify::verify;
