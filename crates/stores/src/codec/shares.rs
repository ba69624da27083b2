//! How meters are shared among users: at the end of a profile, where its status says that there is something.

use super::{Decoded, Malformed, Reader, put_i64, put_option, put_text, put_u64};
use domain::{
    id::{MeterKey, UserId},
    share::{Share, ShareMode},
};
use std::sync::Arc;

pub(super) fn put_shares(out: &mut Vec<u8>, shares: &[Share]) {
    put_u64(out, shares.len() as u64);
    for share in shares {
        put_text(out, share.meter.as_str());
        match &share.mode {
            ShareMode::Pooled => out.push(0),
            ShareMode::Equal { seats } => {
                out.push(1);
                put_i64(out, *seats);
            }
            ShareMode::Custom { users, default } => {
                out.push(2);
                put_u64(out, users.len() as u64);
                for (user, amount) in users.iter() {
                    put_text(out, user.as_str());
                    put_i64(out, *amount);
                }
                put_option(out, *default, put_i64);
            }
        }
    }
}

pub(super) fn shares(reader: &mut Reader<'_>) -> Decoded<Vec<Share>> {
    reader.list(|reader| {
        let meter = MeterKey::trusted(reader.text()?);
        let mode = match reader.byte()? {
            0 => ShareMode::Pooled,
            1 => ShareMode::Equal { seats: reader.i64()? },
            2 => {
                let users = reader.list(|reader| Ok((UserId::trusted(reader.text()?), reader.i64()?)))?;
                ShareMode::Custom { users: Arc::new(users.into_iter().collect()), default: reader.option(Reader::i64)? }
            }
            _ => return Err(Malformed("an unknown kind of share")),
        };
        Ok(Share { meter, mode })
    })
}
