// stores ENGINE BATCH SECS DIR [append]  : durable commits of small usage events, one writer.
//   default workload "keyed": each event = insert into events by random 16-byte idempotency key (48-byte
//   value) if absent + read-modify-write of its tenant's counter (1,000 tenants), all in the batch's commit.
//   "append": each event = insert at an increasing u64 key (64 bytes); counters live in memory.
// engines: sqlite-full sqlite-normal rawlog (append + fdatasync) rawlog-pre (preallocated, zero-filled)
// stores inproc THREADS SECS [str] : check-and-increment on a 64-shard map of 1M counters
// stores fsync KIND SECS DIR : 4 KiB write + fdatasync (append | pre)
use std::{
    hash::BuildHasher,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};
struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
struct Ev {
    key: [u8; 16],
    tenant: u32,
    val: [u8; 48],
}
trait Store {
    fn commit(&mut self, evs: &[Ev], append: bool, seq: &mut u64);
}

struct Sql(rusqlite::Connection);
impl Store for Sql {
    fn commit(&mut self, evs: &[Ev], append: bool, seq: &mut u64) {
        let tx = self.0.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
        {
            let mut i = tx.prepare_cached("INSERT OR IGNORE INTO events(k,v) VALUES(?1,?2)").unwrap();
            let mut l = tx.prepare_cached("INSERT INTO log(id,v) VALUES(?1,?2)").unwrap();
            let mut c = tx
                .prepare_cached("INSERT INTO counters(t,used) VALUES(?1,1) ON CONFLICT(t) DO UPDATE SET used=used+1")
                .unwrap();
            for v in evs {
                if append {
                    *seq += 1;
                    l.execute((*seq as i64, [v.key.as_slice(), v.val.as_slice()].concat())).unwrap();
                    continue;
                }
                if i.execute((v.key.as_slice(), v.val.as_slice())).unwrap() == 1 {
                    c.execute((v.tenant,)).unwrap();
                }
            }
        }
        tx.commit().unwrap();
    }
}
// in-memory dedup set + counters, 72-byte framed records appended to a file
struct Raw {
    f: std::fs::File,
    pre: bool,
    off: u64,
    len: u64,
    buf: Vec<u8>,
    seen: hashbrown::HashSet<[u8; 16]>,
    c: Vec<u64>,
}
impl Store for Raw {
    fn commit(&mut self, evs: &[Ev], _a: bool, seq: &mut u64) {
        self.buf.clear();
        for v in evs {
            if !self.seen.insert(v.key) {
                continue;
            }
            self.c[v.tenant as usize] += 1;
            *seq += 1;
            self.buf.extend_from_slice(&seq.to_le_bytes());
            self.buf.extend_from_slice(&v.key);
            self.buf.extend_from_slice(&v.val);
        }
        if self.pre {
            if self.off + self.buf.len() as u64 > self.len {
                self.off = 0
            }
            self.f.write_all_at(&self.buf, self.off).unwrap();
            self.off += self.buf.len() as u64
        } else {
            self.f.write_all(&self.buf).unwrap()
        }
        self.f.sync_data().unwrap();
    }
}
fn prefile(p: &Path, len: u64) -> std::fs::File {
    let mut f = std::fs::File::create(p).unwrap();
    let z = vec![0u8; 1 << 20];
    for _ in 0..len >> 20 {
        f.write_all(&z).unwrap()
    }
    f.sync_all().unwrap();
    f
}
fn du(p: &Path) -> u64 {
    std::fs::read_dir(p)
        .map(|d| {
            d.flatten()
                .map(|e| {
                    let m = e.metadata().unwrap();
                    if m.is_dir() {
                        du(&e.path())
                    } else {
                        m.len()
                    }
                })
                .sum()
        })
        .unwrap_or(0)
}
fn inproc(th: usize, secs: u64, strk: bool) {
    const N: u64 = 1_000_000;
    let h = hashbrown::DefaultHashBuilder::default();
    let ms: Vec<parking_lot::Mutex<hashbrown::HashMap<u64, (u64, u64)>>> =
        (0..64).map(|_| Default::default()).collect();
    let ss: Vec<parking_lot::Mutex<hashbrown::HashMap<String, (u64, u64)>>> =
        (0..64).map(|_| Default::default()).collect();
    for i in 0..N {
        if strk {
            let k = format!("tenant-{i}:api");
            ss[(h.hash_one(&k) >> 32) as usize % 64].lock().insert(k, (0, 1 << 50));
        } else {
            ms[(h.hash_one(i) >> 32) as usize % 64].lock().insert(i, (0, 1 << 50));
        }
    }
    let t0 = Instant::now();
    let tot: u64 = std::thread::scope(|s| {
        (0..th)
            .map(|t| {
                let (ms, ss, h) = (&ms, &ss, &h);
                s.spawn(move || {
                    let mut r = Rng(0x9E3779B97F4A7C15 ^ (t as u64 + 1));
                    let mut ops = 0u64;
                    let mut k = String::new();
                    while t0.elapsed() < Duration::from_secs(secs) {
                        for _ in 0..1024 {
                            let i = r.next() % N;
                            if strk {
                                use std::fmt::Write;
                                k.clear();
                                write!(k, "tenant-{i}:api").unwrap();
                                let mut g = ss[(h.hash_one(&k) >> 32) as usize % 64].lock();
                                let e = g.get_mut(&k).unwrap();
                                if e.0 + 1 <= e.1 {
                                    e.0 += 1
                                }
                            } else {
                                let mut g = ms[(h.hash_one(i) >> 32) as usize % 64].lock();
                                let e = g.get_mut(&i).unwrap();
                                if e.0 + 1 <= e.1 {
                                    e.0 += 1
                                }
                            }
                        }
                        ops += 1024
                    }
                    ops
                })
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|x| x.join().unwrap())
            .sum()
    });
    println!("inproc-{}\t{th}\t{:.0}", if strk { "str" } else { "u64" }, tot as f64 / t0.elapsed().as_secs_f64());
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a[1] == "inproc" {
        return inproc(a[2].parse().unwrap(), a[3].parse().unwrap(), a.get(4).is_some());
    }
    let secs: u64 = a[3].parse().unwrap();
    let dir = Path::new(&a[4]);
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).unwrap();
    let mut lat: Vec<u32> = vec![];
    let pct = |l: &mut Vec<u32>, p: f64| {
        l.sort_unstable();
        l[((l.len() - 1) as f64 * p) as usize] as f64 / 1000.0
    };
    if a[1] == "fsync" {
        let pre = a[2] == "pre";
        let len = 64 << 20;
        let f = if pre { prefile(&dir.join("f"), len) } else { std::fs::File::create(dir.join("f")).unwrap() };
        let b = [7u8; 4096];
        let mut off = 0;
        let t0 = Instant::now();
        while t0.elapsed() < Duration::from_secs(secs) {
            let t = Instant::now();
            f.write_all_at(&b, off).unwrap();
            f.sync_data().unwrap();
            off += 4096;
            if pre && off >= len {
                off = 0
            }
            lat.push(t.elapsed().as_micros() as u32)
        }
        println!(
            "fsync-{}\t-\t{:.0}\t{:.3}\t{:.3}",
            a[2],
            lat.len() as f64 / t0.elapsed().as_secs_f64(),
            pct(&mut lat, 0.5),
            pct(&mut lat, 0.99)
        );
        let _ = std::fs::remove_dir_all(dir);
        return;
    }
    let batch: usize = a[2].parse().unwrap();
    let append = a.get(5).is_some();
    let mut s: Box<dyn Store> = match a[1].as_str() {
        "sqlite-full" | "sqlite-normal" => {
            let c = rusqlite::Connection::open(dir.join("db")).unwrap();
            c.execute_batch(&format!("PRAGMA journal_mode=WAL; PRAGMA synchronous={}; PRAGMA cache_size=-65536; CREATE TABLE events(k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID; CREATE TABLE log(id INTEGER PRIMARY KEY, v BLOB); CREATE TABLE counters(t INTEGER PRIMARY KEY, used INTEGER);", &a[1][7..])).unwrap();
            Box::new(Sql(c))
        }
        x => {
            let pre = x == "rawlog-pre";
            let len = 256 << 20;
            let p = dir.join("f");
            Box::new(Raw {
                f: if pre { prefile(&p, len) } else { std::fs::File::create(p).unwrap() },
                pre,
                off: 0,
                len,
                buf: vec![],
                seen: Default::default(),
                c: vec![0; 1000],
            })
        }
    };
    let mut r = Rng(88172645463325252 ^ std::process::id() as u64);
    let (mut seq, mut n) = (0u64, 0u64);
    let mut evs = Vec::with_capacity(batch);
    let t0 = Instant::now();
    while t0.elapsed() < Duration::from_secs(secs) {
        evs.clear();
        for _ in 0..batch {
            let (x, y) = (r.next(), r.next());
            let mut key = [0u8; 16];
            key[..8].copy_from_slice(&x.to_le_bytes());
            key[8..].copy_from_slice(&y.to_le_bytes());
            evs.push(Ev { key, tenant: (r.next() % 1000) as u32, val: [b'v'; 48] })
        }
        let t = Instant::now();
        s.commit(&evs, append, &mut seq);
        lat.push(t.elapsed().as_micros() as u32);
        n += batch as u64;
    }
    let el = t0.elapsed().as_secs_f64();
    let mut ru: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut ru) };
    let cpu = ru.ru_utime.tv_sec as f64
        + ru.ru_stime.tv_sec as f64
        + (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) as f64 / 1e6;
    println!(
        "{}{}\t{batch}\t{:.0}\t{:.3}\t{:.3}\t{:.1}\t{:.2}",
        a[1],
        if append { "-append" } else { "" },
        n as f64 / el,
        pct(&mut lat, 0.5),
        pct(&mut lat, 0.99),
        du(dir) as f64 / n as f64,
        cpu / el
    );
    drop(s);
    let _ = std::fs::remove_dir_all(dir);
}
