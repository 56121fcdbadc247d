//! Makes a schedule that shows a difference as short as possible.

use super::schedule::{Operation, Schedule};

/// Leaves out steps, and statements of steps, as long as `shows` says that the difference is still
/// there.
pub fn shrink(schedule: &Schedule, mut shows: impl FnMut(&Schedule) -> bool) -> Schedule {
    let mut best = schedule.clone();
    loop {
        let before = best.clone();
        without_steps(&mut best, &mut shows);
        without_statements(&mut best, &mut shows);
        if best == before {
            return best;
        }
    }
}

/// Leaves out runs of steps, long ones first.
fn without_steps(best: &mut Schedule, shows: &mut impl FnMut(&Schedule) -> bool) {
    let mut length = best.steps.len() / 2;
    while length > 0 {
        // From the end, since late steps depend on early ones.
        let mut at = best.steps.len();
        while at > 0 {
            at = at.saturating_sub(length);
            let mut shorter = best.clone();
            let end = (at + length).min(shorter.steps.len());
            shorter.steps.drain(at..end);
            if shows(&shorter) {
                *best = shorter;
            }
        }
        length /= 2;
    }
}

/// Leaves out statements of a step that has several, and parameters of an open.
fn without_statements(best: &mut Schedule, shows: &mut impl FnMut(&Schedule) -> bool) {
    for n in 0..best.steps.len() {
        let (text, mark) = match &best.steps[n].operation {
            Operation::Sql(sql) => (sql.clone(), "; "),
            Operation::Open(_, parameters) => (parameters.clone(), "&"),
            _ => continue,
        };
        let mut parts: Vec<&str> = text.split(mark).collect();
        for part in (0..parts.len()).rev() {
            if parts.len() == 1 && mark == "; " {
                break;
            }
            let left_out = parts.remove(part);
            let mut shorter = best.clone();
            match &mut shorter.steps[n].operation {
                Operation::Sql(text) | Operation::Open(_, text) => *text = parts.join(mark),
                _ => {}
            }
            if shows(&shorter) {
                *best = shorter;
            } else {
                parts.insert(part, left_out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Database;
    use super::*;

    #[test]
    fn what_is_not_needed_is_left_out() {
        let schedule = super::super::generate::generate(7);
        let needs = |schedule: &Schedule| {
            schedule.steps.iter().any(|step| step.operation.is_sql_with("CREATE TABLE t"))
        };
        assert!(needs(&schedule), "{schedule}");
        let short = shrink(&schedule, needs);
        let [step] = &short.steps[..] else { panic!("{short}") };
        let Operation::Sql(sql) = &step.operation else { panic!("{short}") };
        assert!(sql.starts_with("CREATE TABLE t") && !sql.contains("; "), "{sql}");
    }

    #[test]
    fn parameters_that_are_not_needed_are_left_out() {
        let step = |parameters: &str| super::super::schedule::Step {
            process: 0,
            connection: 0,
            operation: Operation::Open(Database::Board, parameters.to_owned()),
        };
        let schedule = Schedule { is_plain: false, steps: vec![step("mode=ro&immutable=1")] };
        let needs = |schedule: &Schedule| {
            schedule.steps.iter().any(|step| step.to_string().contains("mode=ro"))
        };
        assert_eq!(shrink(&schedule, needs).steps, [step("mode=ro")]);
    }

    #[test]
    fn what_shows_nothing_stays_as_it_is() {
        let schedule = super::super::generate::generate(8);
        assert_eq!(shrink(&schedule, |_| false), schedule);
    }
}
