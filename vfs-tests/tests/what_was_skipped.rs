//! Says at the end of a run which tests have skipped themselves, and why. This is no test, but the
//! last of the test programs in the order of their names. It has no harness, which would hide its
//! output.

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    #[cfg(unix)]
    {
        let skipped = vfs_tests::needs::take_skipped();
        match skipped.len() {
            0 => println!("\nno test was skipped\n"),
            1 => println!("\n1 test was skipped:"),
            n => println!("\n{n} tests were skipped:"),
        }
        for line in &skipped {
            println!("  {line}");
        }
        println!();
    }
}
