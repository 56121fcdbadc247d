use super::*;
use crate::lock::write_lock::tests::board;

/// All connections of this process to one file meet in one object, as long as any of them is open.
#[test]
fn a_file_is_one_database_under_all_its_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = board(&directory);
    let second = directory.path().join("second.db");
    std::fs::hard_link(database.path(), &second).expect("a link");
    assert!(Arc::ptr_eq(&database, &Database::at(&second)));
    let path = database.path().to_owned();
    assert!(Arc::ptr_eq(&database, &Database::at(&path)));
    let key = database.key.clone();
    let is_known = || REGISTRY.lock().as_ref().is_some_and(|all| all.contains_key(&key));
    assert!(is_known());
    drop(database);
    assert!(!is_known(), "it is forgotten with the last");
    assert_eq!(Database::at(&second).path(), second, "made anew");
}
