//! The store of many nodes: one PostgreSQL, to which any number of nodes write at once.
//!
//! # What is in the database
//!
//! All of it is in a schema of its own (`tidegate`, unless the URL says otherwise); `tables_1.sql` explains each table.
//! `entries` and `openings` are the truth, and so are `meta`, `catalogs` and `api_keys`; `tenants.version` is the
//! position of the tenant's last entry; `ids` and `denials` are written with the entries that bind or count them;
//! `folds`, `user_folds` and `closed` are folds, each row true for its own position. Bodies are the codec's, each with
//! a checksum over its bytes and its place. `history` (`tables_2.sql`) is what was used when, true for one place in the
//! order of all.
//!
//! # How a commit happens
//!
//! [`append`](engine::ports::Ledger::append) encodes entries, gives them their positions and wakes the committer, a task
//! with a connection of its own. It takes what waits, makes one *part* of what a tenant has in it, and sends all parts
//! as **one statement** (`commit.sql`): one round trip, one transaction, one sync of PostgreSQL's log, however many
//! tenants there are. A part is written if and only if
//!
//! - the tenant's version is the position that the part follows (or there is no such tenant, for its first entries),
//! - none of its ids is bound,
//! - no newer catalog than the one it was decided on is in force.
//!
//! Why one statement is enough, though all of it but locked rows sees only what was committed before it began: tenants'
//! rows are locked first, and PostgreSQL re-evaluates the condition on the newest version of a row it locks. A version
//! that is still the one that the part follows means that the tenant's entries are those this node knows of, all of
//! them committed before the statement began; so their ids are among what it sees. The row of `meta` is read under a
//! share lock in the same way, which a change of catalog excludes. A row that another node has locked is not waited for
//! (that node is about to change the version, or keeps it for a caller who lost before): the part is stale. So batches
//! never wait for each other but in creating the same tenant, which they do in order of id: there is no deadlock.
//!
//! What was charged **under leases** is sent by another committer (`commit_leased.sql`). Its part is written if and only if
//! the tenant's row says that the lease is there and how many entries were made under it last, which is what the part
//! follows. The row's version does not matter: it is what gives the entries their positions. Such parts wait for rows that
//! others have locked, in order of tenant, as two nodes that charge one tenant lock its row in turns; other tenants'
//! commits are not kept waiting by it. The condition is looked at on the newest version of the row, as above; ids are not:
//! one that another lease has bound since the statement began breaks the unique index, and the batch is sent again.
//!
//! A part that is not written says that its basis is outdated, and fails everything queued on the same basis; other
//! parts go through.
//!
//! # When the connection is lost
//!
//! Every part carries a random token, which its entries keep. What was sent without an answer is sent again, with the
//! same token, waiting for locks this time (the backend of the lost connection may still be at work); a part that is
//! then found stale is looked for by its token. So it is written once, whatever was lost. Past
//! [`PostgresOptions::give_up`], what waits is told that the ledger can't be written. Meanwhile
//! [`ready`](engine::ports::Ledger::ready) says so at once, and the committer tries until a commit would go through: it
//! does one and takes it back, as a server that answers may be read-only, have its disk full, or wait for a replica that
//! is away. While it finds no connection nobody else waits for one.
//!
//! # Reading the journal in order
//!
//! Places in the order of all come from a sequence, while the tenant's row is locked: a tenant's entries are in order.
//! Commits are not: place 6 may be committed before place 5. A reader therefore asks how far the sequence has come,
//! then waits until no transaction that writes to `entries` at that moment (they all hold a lock on the table, which
//! PostgreSQL shows) is still under way: no entry at or before that place can appear any more.
//!
//! # PgBouncer
//!
//! With `pgbouncer=true` in the URL nothing is kept in a session: no prepared statements, no settings, no session
//! locks, nothing is listened for. The statement that commits brings its limit along, so that it is the same everywhere.

mod batch;
mod buckets;
mod committer;
mod denials;
mod errors;
mod folds;
mod forecasts;
mod holds;
mod hosts;
mod journal;
mod ledger;
pub(crate) mod moving;
mod moving_write;
mod openings;
mod outcome;
mod pool;
mod probe;
mod queue;
mod queued;
mod reads;
mod refold;
mod retain;
mod schema;
mod small;
mod snapshots;
mod statement;
mod tls;
mod url;
mod values;
mod verify;
mod verify_rows;

pub use ledger::{PostgresLedger, PostgresOptions};
pub use verify::verify;
