use super::*;

#[track_caller]
fn is(sql: &str, expected: &str) {
    assert_eq!(String::from_utf8_lossy(&normalised(sql.as_bytes())), expected);
}

#[test]
fn values_case_space_and_comments_make_no_difference() {
    for sql in [
        "SELECT a FROM t WHERE b = 1 AND c = 'x''y'",
        "select a\n  from t -- all of them\n where b=0x1F and c='' ",
        "SELECT/* a comment */a FROM t WHERE b=? AND c=?2 ; -- the end",
    ] {
        is(sql, "select a from t where b=? and c=?");
    }
    is("SELECT * FROM t WHERE id IN (1, 2,3)", "select*from t where id in(?)");
    is("SELECT * FROM t WHERE id IN (?)", "select*from t where id in(?)");
    is("SELECT 1.5e3, 2", "select ?");
}

#[test]
fn what_is_read_makes_a_difference() {
    is("SELECT a1 FROM t2", "select a1 from t2");
    is("SELECT \"A b\", [c] , `d` FROM t", "select\"a b\",[c],`d`from t");
    is("SELECT a, ? FROM t LIMIT :n", "select a,? from t limit:n");
    assert_ne!(kind_of(b"SELECT a FROM t"), kind_of(b"SELECT a FROM u"));
    assert_eq!(kind_of(b"SELECT a FROM t"), kind_of(b"select  a from T"));
}

/// The first word of a statement is found behind white space and comments, and nowhere else.
#[test]
fn the_first_word_is_behind_comments() {
    for before in ["", " \n", "/* x */ ", "-- x\n", "/* -- */--/*\n\t;/**/"] {
        let sql = format!("{before}Vacuum INTO 'copy'");
        assert!(begins_with(sql.as_bytes(), b"vacuum"), "{sql}");
        assert!(!begins_with(sql.as_bytes(), b"attach"), "{sql}");
    }
    for sql in ["", "/", "/* vacuum", "-- vacuum", "vacuu", "SELECT 1 /* vacuum */"] {
        assert!(!begins_with(sql.as_bytes(), b"vacuum"), "{sql}");
    }
}

/// A statement that is cut off, or is no statement at all, has a kind, too.
#[test]
fn any_bytes_have_a_kind() {
    for sql in ["", "'", "\"", "/*", "--", "[", "?", "1", "é'", "/", "-"] {
        for text in [sql.to_owned(), sql.repeat(5000)] {
            normalised(text.as_bytes());
        }
    }
    let long = |end: &str| format!("SELECT {}{end}", "a+".repeat(LOOKS_AT));
    assert_eq!(kind_of(long("1").as_bytes()), kind_of(long("b").as_bytes()));
}
