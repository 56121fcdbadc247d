//! SQL for the schedules.

use fastrand::Rng;

/// One of these texts.
pub fn pick<'a>(rng: &mut Rng, these: &[&'a str]) -> &'a str {
    these[rng.usize(..these.len())]
}

/// Creates the tables that most statements use, and some rows.
pub fn setup(rng: &mut Rng) -> String {
    let mut sql = Vec::new();
    if rng.u8(..4) > 0 {
        sql.push(format!(
            "PRAGMA page_size={}",
            pick(rng, &["512", "1024", "2048", "4096", "8192"])
        ));
    }
    if rng.u8(..4) == 0 {
        sql.push(format!("PRAGMA auto_vacuum={}", pick(rng, &["full", "incremental"])));
    }
    if rng.u8(..8) > 0 {
        let mode = if rng.u8(..3) > 0 { "wal" } else { journal_mode(rng) };
        sql.push(format!("PRAGMA journal_mode={mode}"));
    }
    if rng.u8(..16) > 0 {
        sql.push("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)".to_owned());
        sql.push(insert(rng));
    }
    if rng.bool() {
        sql.push("CREATE INDEX i ON t (a)".to_owned());
    }
    sql.join("; ")
}

fn journal_mode(rng: &mut Rng) -> &'static str {
    let usual = ["wal", "wal", "delete", "delete", "truncate", "persist"];
    if rng.u8(..12) > 0 { pick(rng, &usual) } else { pick(rng, &["memory", "off"]) }
}

fn insert(rng: &mut Rng) -> String {
    let (rows, bytes) = (rng.u8(1..12), rng.u16(..1200));
    let values = format!("n * {}, zeroblob({bytes})", rng.u8(1..9));
    format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT {rows}) \
         INSERT INTO t (a, b) SELECT {values} FROM c"
    )
}

/// A statement that writes rows.
pub fn write(rng: &mut Rng) -> String {
    let (k, n) = (rng.u8(1..5), rng.u8(..100));
    match rng.u8(..12) {
        0..5 => insert(rng),
        5 => format!("UPDATE t SET a = {n}"),
        6 => format!("UPDATE t SET a = a + 1, b = zeroblob({}) WHERE id % {k} = 0", n * 2),
        7 => format!("UPDATE t SET b = zeroblob({}) WHERE id = {k}", rng.u16(..9000)),
        8 => format!("DELETE FROM t WHERE id % {k} = 0"),
        9 => "DELETE FROM t".to_owned(),
        10 => format!("INSERT OR REPLACE INTO t VALUES ({k}, {n}, 'text {n}') RETURNING id"),
        _ => format!("INSERT OR FAIL INTO t VALUES (NULL, 1, 2), ({k}, {n}, NULL)"),
    }
}

/// A query.
pub fn read(rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0..3 => "SELECT count(*), sum(a) FROM t".to_owned(),
        3 => "SELECT id, a, length(b) FROM t ORDER BY id".to_owned(),
        4 => "SELECT max(a) FROM t WHERE a > 3".to_owned(),
        _ => "SELECT count(*) FROM sqlite_schema".to_owned(),
    }
}

/// A statement about transactions.
pub fn transaction(rng: &mut Rng) -> String {
    let what = [
        "BEGIN",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "BEGIN IMMEDIATE",
        "BEGIN EXCLUSIVE",
        "COMMIT",
        "COMMIT",
        "COMMIT",
        "COMMIT",
        "ROLLBACK",
        "ROLLBACK",
        "SAVEPOINT s",
        "RELEASE s",
        "ROLLBACK TO s",
    ];
    pick(rng, &what).to_owned()
}

/// A statement that changes the schema, or moves the file's pages.
pub fn schema(rng: &mut Rng) -> String {
    let what = [
        "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, a, b)",
        "CREATE TABLE u AS SELECT a, b FROM t",
        "DROP TABLE u",
        "DROP TABLE t",
        "CREATE INDEX j ON t (b)",
        "DROP INDEX j",
        "ALTER TABLE t RENAME COLUMN a TO a",
        "ANALYZE",
        "REINDEX",
        "VACUUM",
        "VACUUM",
        "VACUUM INTO '{copy}'",
        "PRAGMA incremental_vacuum",
        "CREATE TEMP TABLE v AS SELECT * FROM t",
    ];
    pick(rng, &what).to_owned()
}

/// A statement that uses two databases.
pub fn attach(rng: &mut Rng) -> String {
    let what = [
        "ATTACH '{other}' AS o",
        "ATTACH '{other}' AS o",
        "ATTACH '{board}' AS o",
        "ATTACH '{other}&mode=ro' AS o",
        "DETACH o",
        "CREATE TABLE IF NOT EXISTS o.t (id INTEGER PRIMARY KEY, a, b)",
        "INSERT INTO o.t (a, b) SELECT a, b FROM main.t LIMIT 5",
        "BEGIN; INSERT INTO o.t (a) VALUES (1); INSERT INTO main.t (a) VALUES (2); COMMIT",
        "SELECT count(*) FROM o.t",
        "PRAGMA o.journal_mode=wal",
        "PRAGMA o.journal_mode=delete",
        "PRAGMA o.wal_checkpoint",
    ];
    pick(rng, &what).to_owned()
}

/// A pragma.
pub fn pragma(rng: &mut Rng) -> String {
    let explain = pick(rng, &["", "", "", "", "", "", "", "", "", "EXPLAIN "]);
    let (name, value) = match rng.u8(..28) {
        0..4 => ("journal_mode", journal_mode(rng)),
        4 => ("journal_mode", ""),
        5..8 => {
            let modes = ["exclusive", "exclusive", "normal", "normal", "normal", ""];
            ("locking_mode", pick(rng, &modes))
        }
        8 => ("synchronous", pick(rng, &["off", "normal", "full", "extra"])),
        9 => ("wal_autocheckpoint", pick(rng, &["0", "1", "5", "1000"])),
        10..13 => {
            let modes = ["passive", "full", "restart", "truncate", "truncate"];
            ("wal_checkpoint", pick(rng, &modes))
        }
        13 => ("cache_size", pick(rng, &["1", "5", "2000"])),
        14 => ("cache_spill", pick(rng, &["1", "off"])),
        15 => ("journal_size_limit", pick(rng, &["0", "2000", "-1"])),
        16 => ("mmap_size", pick(rng, &["0", "1000000"])),
        17 => ("user_version", pick(rng, &["", "1", "2", "3"])),
        18 => ("integrity_check", ""),
        19 => ("data_version", ""),
        20 => (pick(rng, &["page_count", "freelist_count", "schema_version"]), ""),
        21 => ("query_only", pick(rng, &["0", "0", "1"])),
        22 => ("page_size", pick(rng, &["512", "1024", "4096"])),
        23 => ("auto_vacuum", pick(rng, &["none", "full", "incremental"])),
        24 => ("secure_delete", pick(rng, &["on", "off", "fast"])),
        25 => ("max_page_count", pick(rng, &["10", "100", "100000"])),
        26 => ("optimize", ""),
        _ => ("quick_check", ""),
    };
    let value = if value.is_empty() { String::new() } else { format!("={value}") };
    // EXPLAIN shows byte code, which differs between versions of SQLite, not VFSes.
    format!("{explain}PRAGMA {name}{value}")
}
