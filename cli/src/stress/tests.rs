use super::*;

#[test]
fn a_picture_counts_every_wait_once() {
    let waits: Vec<Duration> = [1, 9, 10, 15, 3_000, 60_000_000].map(Duration::from_micros).into();
    let picture = picture(&waits);
    let counts: Vec<usize> = picture
        .lines()
        .skip(1)
        .map(|line| line[13..].split_whitespace().next().unwrap_or("").parse().unwrap_or(99))
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), waits.len(), "{picture}");
    assert_eq!((counts[0], counts[1]), (2, 2), "{picture}");
    assert!(picture.contains("longest 1 min 0 s"), "{picture}");
}

/// Each wait is a point, on axes that say what they are.
#[test]
fn a_drawing_has_a_point_for_each_wait() {
    let ms = |ms: [u64; 3]| ms.map(Duration::from_millis).to_vec();
    let reports = Reports { waits: ms([0, 5, 3000]), at: ms([1, 500, 990]), ..Reports::default() };
    let drawing = drawing(&reports, Duration::from_secs(1));
    assert_eq!(drawing.matches("<circle").count(), 3);
    for label in [
        ">time since the burst began, s<",
        ">wait<",
        ">10 us<",
        ">1 ms<",
        ">100 s<",
        ">0.4<",
        ">1<",
    ] {
        assert!(drawing.contains(label), "{label}: {drawing}");
    }
}

/// An acknowledged row is gone, or a transaction failed: then the burst fails.
#[test]
fn a_lost_row_and_an_error_are_found() -> Result<()> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(
        "CREATE TABLE kanban_vfs_stress (writer INTEGER, number INTEGER);
         INSERT INTO kanban_vfs_stress VALUES (0, 1)",
    )?;
    let mut reports = Reports::default();
    reports.acknowledged.insert((0, 1));
    assert!(Outcome::of(&connection, &reports, 0, Duration::from_secs(1))?.is_well());
    reports.acknowledged.insert((0, 2));
    assert!(!Outcome::of(&connection, &reports, 0, Duration::from_secs(1))?.is_well());
    reports.acknowledged.remove(&(0, 2));
    reports.errors.push("database is locked".to_owned());
    assert!(!Outcome::of(&connection, &reports, 0, Duration::from_secs(1))?.is_well());
    Ok(())
}

#[test]
fn a_line_that_was_cut_short_is_no_report() {
    assert_eq!(report_of("row 7 120\n"), Some((7, Ok(Duration::from_micros(120)))));
    assert!(matches!(report_of("error 7 locked, it says\n"), Some((7, Err(_)))));
    assert_eq!(report_of("row 7\n"), None);
}
