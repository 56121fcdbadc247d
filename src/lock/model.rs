//! The queue on a simulated kernel, in which processes can be scheduled in every order and killed at every step.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use super::page::{FIRST_SLOTS, LENGTH, Looks, PAGE, Page, SLOTS, SlotState, Waiter};
use super::queue::{Pace, Place, Purpose, Queue, QueueFile, Rank, Taken, Until, slot_range};
use crate::sys::Range;

/// A machine on which processes call the kernel, one at a time.
trait Machine: Clone {
    fn with<R>(&self, act: impl FnOnce(&mut Kernel) -> R) -> R;
    /// Lets other processes run for at most `limit`. Returns whether the caller was woken.
    fn pause(&self, limit: Duration) -> bool;
    fn wake_all(&self);
}

/// One process's view of the sidecar.
#[derive(Clone)]
struct Process<M> {
    machine: M,
    id: usize,
    /// How many more system calls this process makes before it is killed.
    left: Arc<AtomicUsize>,
}

/// The panic that unwinds a process that is killed.
struct Killed;

impl<M: Machine> Process<M> {
    fn new(machine: &M, id: usize, left: usize) -> Self {
        Self { machine: machine.clone(), id, left: Arc::new(AtomicUsize::new(left)) }
    }

    /// Makes a system call, unless the process is killed there.
    fn call<R>(&self, act: impl FnOnce(&mut Kernel) -> R) -> R {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.machine.with(|kernel| kernel.kill(self.id));
            std::panic::resume_unwind(Box::new(Killed));
        }
        self.machine.with(|kernel| {
            kernel.clock += 1000;
            act(kernel)
        })
    }

    /// Takes the write lock `rounds` times and holds it for `hold` each time. Returns the longest
    /// wait.
    fn work(&self, rounds: usize, hold: Duration) -> Duration {
        let queue = Queue::new(self.clone());
        let mut pace = Pace::default();
        let mut longest = Duration::ZERO;
        for _ in 0..rounds {
            let began = Instant::now();
            let mut place = None;
            let taken = loop {
                if let Some(taken) = queue
                    .try_acquire(queue.sidecar().now(), Purpose::Write, place.as_ref(), &mut pace)
                    .expect("no I/O")
                {
                    break taken;
                }
                if place.is_none() {
                    place = queue.join(Rank::Last, Duration::ZERO, Purpose::Write);
                } else if let Some(place) = &place {
                    queue.was_refused(place);
                }
                match &mut place {
                    Some(place) => queue.wait(place, Duration::from_millis(20), Until::Sign),
                    None => queue.poll(Duration::from_millis(20), Until::Sign),
                };
            };
            longest = longest.max(began.elapsed());
            if let Some(place) = place {
                queue.leave(&place);
            }
            self.call(|kernel| {
                assert_eq!(kernel.inside, None, "two processes have the write lock");
                kernel.inside = Some(self.id);
            });
            self.machine.pause(hold);
            self.call(|kernel| kernel.inside = None);
            queue.release(taken, Some(&mut pace), || {}).expect("no I/O");
            self.machine.pause(hold);
        }
        longest
    }
}

impl<M: Machine> QueueFile for Process<M> {
    fn read(&self) -> io::Result<Page> {
        Ok(Page::of(&self.call(|kernel| kernel.page.clone())))
    }

    fn lengthen(&self) {
        let _ = self.write(LENGTH as u64 - 1, &[0]);
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = at as usize;
        self.call(|kernel| kernel.page[at..at + bytes.len()].copy_from_slice(bytes));
        Ok(())
    }

    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        Ok(self.call(|kernel| kernel.lock(self.id, range, shared)))
    }

    fn unlock(&self, range: Range) -> io::Result<()> {
        self.call(|kernel| kernel.unlock(self.id, range));
        Ok(())
    }

    fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        Ok(self.call(|kernel| kernel.conflicting(self.id, range, false)))
    }

    fn wait(&self, slot: usize, word: u32, limit: Duration) -> bool {
        let changed = self.call(|kernel| Page::of(&kernel.page).word(slot) != word);
        changed || self.machine.pause(limit)
    }

    fn wake(&self, _: usize) {
        self.call(|_| ());
        self.machine.wake_all();
    }

    fn sleep(&self, duration: Duration) {
        self.call(|_| ());
        self.machine.pause(duration);
    }

    /// Each process is in another time namespace: one is 10 s behind, one 10 s ahead of the first.
    fn now(&self) -> u64 {
        const SECONDS: [u64; 3] = [20, 10, 30];
        self.shared_now() + SECONDS[self.id % SECONDS.len()] * 1_000_000_000
    }

    fn kernel_now(&self) -> u64 {
        self.now()
    }

    fn shared_now(&self) -> u64 {
        self.machine.with(|kernel| kernel.clock)
    }

    fn process(&self) -> (u32, [u8; 12]) {
        (self.id as u32, *b"model\0\0\0\0\0\0\0")
    }
}

/// Threads of the operating system, in real time.
#[derive(Clone)]
struct Threads(Arc<(Mutex<Kernel>, Condvar, Instant)>);

impl Machine for Threads {
    fn with<R>(&self, act: impl FnOnce(&mut Kernel) -> R) -> R {
        let mut kernel = self.0.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kernel.clock = (1 << 40) + self.0.2.elapsed().as_nanos() as u64;
        act(&mut kernel)
    }

    fn pause(&self, limit: Duration) -> bool {
        let kernel = self.0.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.0.1.wait_timeout(kernel, limit).is_ok_and(|(_, timeout)| !timeout.timed_out())
    }

    fn wake_all(&self) {
        self.0.1.notify_all();
    }
}

/// One of three processes is killed at its first, second, third, ... system call, so at each step:
/// while it tries, joins, waits, holds, hands over or leaves. The others go on.
#[test]
fn a_process_killed_at_any_step_delays_nobody() {
    /// Longer than one process can have to wait: a turn expires after 50 ms, waiters behind the
    /// head look every 10 ms, and the machine may be loaded.
    const BOUND: Duration = Duration::from_secs(2);
    const HOLD: Duration = Duration::from_micros(300);
    let mut killed_at = 0;
    for step in 1.. {
        let machine =
            Threads(Arc::new((Mutex::new(Kernel::new()), Condvar::new(), Instant::now())));
        let (survived, longest) = std::thread::scope(|scope| {
            let victim = Process::new(&machine, 0, step);
            let victim = scope.spawn(move || victim.work(5, HOLD));
            let others: Vec<_> = (1..3)
                .map(|id| {
                    let process = Process::new(&machine, id, usize::MAX);
                    scope.spawn(move || process.work(20, HOLD))
                })
                .collect();
            let survived = match victim.join() {
                Ok(_) => true,
                Err(cause) if cause.is::<Killed>() => false,
                Err(cause) => std::panic::resume_unwind(cause),
            };
            let waits = others.into_iter().map(|other| other.join().expect("an exclusion failed"));
            (survived, waits.max())
        });
        assert!(longest < Some(BOUND), "killed at step {step}: {longest:?}");
        if survived {
            break;
        }
        killed_at = step;
    }
    assert!(killed_at > 20, "only {killed_at} steps");
}

/// Longer than newcomers may overtake a waiter.
const AGES: Duration = Duration::from_secs(60);

/// A holder and two waiting processes, all played by this thread.
struct Scene {
    machine: Threads,
    queues: Vec<Queue<Process<Threads>>>,
}

impl Scene {
    /// Process 0 has the write lock. The others have long waited for it, in the order of their numbers.
    fn new() -> (Self, Pace, Taken, Vec<Place>) {
        let machine =
            Threads(Arc::new((Mutex::new(Kernel::new()), Condvar::new(), Instant::now())));
        let queues: Vec<_> =
            (0..3).map(|id| Queue::new(Process::new(&machine, id, usize::MAX))).collect();
        let mut pace = Pace::default();
        let places: Vec<_> = (1..3)
            .map(|n| {
                let place = queues[n].join(Rank::Last, AGES, Purpose::Write);
                let mut place = place.expect("a slot is free");
                queues[n].show(&mut place);
                assert!(queues[n].announce());
                place
            })
            .collect();
        let taken = queues[0]
            .try_acquire(queues[0].sidecar().now(), Purpose::Write, None, &mut pace)
            .expect("no I/O")
            .expect("it is free");
        (Self { machine, queues }, pace, taken, places)
    }

    fn page(&self) -> Page {
        Page::of(&self.machine.with(|kernel| kernel.page.clone()))
    }

    fn states(&self) -> Vec<(usize, SlotState)> {
        self.page().waiters().map(|waiter| (waiter.slot, waiter.state)).collect()
    }

    fn kill(&self, process: usize) {
        self.machine.with(|kernel| kernel.locks.retain(|(owner, _, _)| *owner != process));
    }
}

/// A newcomer takes the free lock and releases it.
fn passes_on(queue: &Queue<Process<Threads>>) {
    let mut pace = Pace::default();
    let now = queue.sidecar().now();
    let taken = queue.try_acquire(now, Purpose::Write, None, &mut pace).expect("no I/O");
    queue.release(taken.expect("it is free"), Some(&mut pace), || {}).expect("no I/O");
}

/// The first waiter has waited for longer than newcomers may overtake. The holder gives it the turn and wakes it;
/// a newcomer and a later waiter are refused, the one with the turn is not.
#[test]
fn the_first_waiter_gets_its_turn() {
    let (scene, mut pace, taken, places) = Scene::new();
    let first = places[0];
    let a_moment_ago = scene.queues[0].sidecar().now();
    scene.queues[0].release(taken, Some(&mut pace), || {}).expect("no I/O");
    let turn = scene.page().turn().expect("a turn is given");
    assert_eq!((turn.slot, turn.ticket), (first.slot, first.ticket));
    assert_eq!(
        scene.states(),
        [(first.slot, SlotState::Woken), (places[1].slot, SlotState::Present)]
    );
    let refused = |queue: &Queue<Process<Threads>>, place| {
        queue.try_acquire(queue.sidecar().now(), Purpose::Write, place, &mut Pace::default())
    };
    assert!(refused(&scene.queues[0], None).expect("no I/O").is_none(), "a newcomer");
    let mut pace = Pace::default();
    let came = scene.queues[0].try_acquire(a_moment_ago, Purpose::Write, None, &mut pace);
    assert!(
        came.expect("no I/O").is_none(),
        "a newcomer that has looked at its files since it read the clock"
    );
    assert!(refused(&scene.queues[2], Some(&places[1])).expect("no I/O").is_none(), "the second");
    assert!(refused(&scene.queues[1], Some(&first)).expect("no I/O").is_some(), "the first");
}

/// A holder took the lock while nobody waited, and keeps it for a while. A waiter that comes now
/// cannot lock the waiters' byte, but still gets the turn.
#[test]
fn a_holder_finds_the_waiter_that_could_not_announce_itself() {
    let machine = Threads(Arc::new((Mutex::new(Kernel::new()), Condvar::new(), Instant::now())));
    let [holder, waiter] = [0, 1].map(|id| Queue::new(Process::new(&machine, id, usize::MAX)));
    let mut pace = Pace::default();
    let taken = holder
        .try_acquire(holder.sidecar().now(), Purpose::Write, None, &mut pace)
        .expect("no I/O");
    assert_eq!(taken, Some(Taken::Uncontended));
    let mut place = waiter.join(Rank::Last, AGES, Purpose::Write).expect("a slot is free");
    waiter.show(&mut place);
    assert!(!waiter.announce(), "the holder has the byte");
    std::thread::sleep(Duration::from_millis(3));
    holder.release(Taken::Uncontended, Some(&mut pace), || {}).expect("no I/O");
    let page = Page::of(&machine.with(|kernel| kernel.page.clone()));
    assert_eq!(page.turn().map(|turn| turn.slot), Some(place.slot));
}

/// The first waiter is dead. The holder clears its slot and chooses the second.
#[test]
fn a_dead_waiter_is_passed_over() {
    let (scene, mut pace, taken, places) = Scene::new();
    scene.kill(1);
    assert!(scene.queues[0].has_waiters());
    scene.queues[0].release(taken, Some(&mut pace), || {}).expect("no I/O");
    assert_eq!(scene.states(), [(places[1].slot, SlotState::Woken)]);
    assert_eq!(scene.page().turn().map(|turn| turn.slot), Some(places[1].slot));
    scene.kill(2);
    assert!(!scene.queues[0].has_waiters(), "its slot is void");
}

/// The first waiter does not come for its turn, which expires. Holders pass it over until it is back; it keeps
/// its place.
#[test]
fn a_waiter_that_misses_its_turn_is_passed_over() {
    let (scene, mut pace, taken, mut places) = Scene::new();
    scene.queues[0].release(taken, Some(&mut pace), || {}).expect("no I/O");
    std::thread::sleep(Duration::from_nanos(super::page::TURN_NS + 1_000_000));
    // The second has looked at the page by now.
    scene.queues[2].show(&mut places[1]);
    passes_on(&scene.queues[0]);
    assert_eq!(
        scene.states(),
        [(places[0].slot, SlotState::Away), (places[1].slot, SlotState::Woken)]
    );
}

/// All waiters but the last are stopped, as in a frozen container. The first misses its turn. The
/// last waiter gets the next one: the others have not looked at the page since, and each would miss
/// a turn as well.
#[test]
fn stopped_waiters_miss_one_turn_together() {
    let (scene, mut pace, taken, mut places) = Scene::new();
    let others: Vec<_> = (3..43)
        .map(|id| {
            let queue = Queue::new(Process::new(&scene.machine, id, usize::MAX));
            let mut place = queue.join(Rank::Last, AGES, Purpose::Write).expect("a slot is free");
            queue.show(&mut place);
            (queue, place)
        })
        .collect();
    scene.queues[0].release(taken, Some(&mut pace), || {}).expect("no I/O");
    assert_eq!(scene.page().turn().map(|turn| turn.slot), Some(places[0].slot));
    std::thread::sleep(Duration::from_nanos(super::page::TURN_NS + 1_000_000));
    let (living, place) = others.last().expect("there are forty");
    living.show(&mut place.clone());
    passes_on(&scene.queues[0]);
    assert_eq!(scene.page().turn().map(|turn| turn.slot), Some(place.slot));
    // The first of the stopped ones is back, and keeps its place.
    scene.queues[2].show(&mut places[1]);
    let taken = living
        .try_acquire(living.sidecar().now(), Purpose::Write, Some(place), &mut Pace::default())
        .expect("no I/O");
    living.leave(place);
    living
        .release(taken.expect("it is its turn"), Some(&mut Pace::default()), || {})
        .expect("no I/O");
    assert_eq!(scene.page().turn().map(|turn| turn.slot), Some(places[1].slot));
}

/// Forty waiters are stopped, as in a frozen container, and a holder marks them. Then they are killed. The next holder
/// frees their slots, which would otherwise stay in use, and put each later waiter far from the head.
#[test]
fn stopped_waiters_that_are_killed_leave_no_slots_in_use() {
    let (scene, mut pace, taken, mut places) = Scene::new();
    let late = Looks::by(scene.queues[0].sidecar().shared_now() - 300_000_000);
    let stopped = 3..43;
    for id in stopped.clone() {
        let process = Process::new(&scene.machine, id, usize::MAX);
        let queue = Queue::new(process.clone());
        let place = queue.join(Rank::First, AGES, Purpose::Write).expect("a slot is free");
        queue.show(&mut place.clone());
        let waiter = scene.page().waiter(place.slot).expect("it is shown");
        let (at, bytes) = Waiter { looks: late, ..waiter }.encode();
        process.write(at, &bytes).expect("no I/O");
    }
    // On a busy machine it is late by now.
    scene.queues[1].show(&mut places[0]);
    let away = || scene.states().iter().filter(|(_, state)| *state == SlotState::Away).count();
    scene.queues[0].release(taken, Some(&mut pace), || {}).expect("no I/O");
    assert_eq!((away(), scene.page().turn().map(|turn| turn.slot)), (40, Some(places[0].slot)));
    let (now, mut pace) = (scene.queues[1].sidecar().now(), Pace::default());
    let first = scene.queues[1]
        .try_acquire(now, Purpose::Write, Some(&places[0]), &mut pace)
        .expect("no I/O")
        .expect("it has the turn");
    scene.queues[1].leave(&places[0]);
    stopped.for_each(|id| scene.kill(id));
    scene.queues[1].release(first, Some(&mut pace), || {}).expect("no I/O");
    assert_eq!(away(), 0);
    assert_eq!((0..SLOTS).filter(|slot| scene.page().is_used(*slot)).count(), 1);
}

/// Seventeen wait, and the holder releases the lock without waking any. The last of them is too far
/// from the head to try for the lock; the others try.
#[test]
fn a_waiter_far_from_the_head_does_not_try() {
    let machine = Threads(Arc::new((Mutex::new(Kernel::new()), Condvar::new(), Instant::now())));
    let [holder, waiter] = [0, 1].map(|id| Queue::new(Process::new(&machine, id, usize::MAX)));
    let mut pace = Pace::default();
    let now = || holder.sidecar().now();
    let taken = holder.try_acquire(now(), Purpose::Write, None, &mut pace).expect("no I/O");
    let wait = |queue: &Queue<Process<Threads>>| {
        let mut place = queue.join(Rank::Last, Duration::ZERO, Purpose::Write);
        let place = place.as_mut().expect("a slot is free");
        assert_eq!(queue.wait(place, Duration::from_millis(1), Until::Sign), None);
        *place
    };
    let places: Vec<_> = (0..17).map(|_| wait(&waiter)).collect();
    let far: Vec<_> = places.iter().map(Place::is_far).collect();
    assert_eq!(far.iter().position(|far| *far), Some(16));
    holder.release(taken.expect("it is free"), None, || {}).expect("no I/O");
    let tries = |place: &Place| {
        let mut pace = Pace::default();
        let taken = waiter.try_acquire(now(), Purpose::Write, Some(place), &mut pace);
        taken.expect("no I/O").is_some()
    };
    assert!(!tries(&places[16]) && waiter.is_free());
    assert!(tries(&places[0]));
}

/// A thousand processes have waited once each, and keep their boards open. Then a thousand wait at
/// a time: each has a place, and the first of them the turn. When they have gone, a look reads the
/// first page only.
#[test]
fn a_thousand_processes_have_places() {
    let machine = Threads(Arc::new((Mutex::new(Kernel::new()), Condvar::new(), Instant::now())));
    let queues: Vec<_> =
        (0..1000).map(|id| Queue::new(Process::new(&machine, id, usize::MAX))).collect();
    let join = |queue: &Queue<Process<Threads>>| {
        let mut place = queue.join(Rank::Last, AGES, Purpose::Write).expect("a slot is free");
        queue.show(&mut place);
        place
    };
    for queue in &queues {
        let place = join(queue);
        queue.leave(&place);
    }
    let places: Vec<_> = queues[1..].iter().map(join).collect();
    assert!(queues[999].announce());
    let mut pace = Pace::default();
    let taken = queues[0]
        .try_acquire(queues[0].sidecar().now(), Purpose::Write, None, &mut pace)
        .expect("no I/O")
        .expect("it is free");
    let mut slots: Vec<_> = places.iter().map(|place| place.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), 999);
    // On a busy machine it is late by now.
    queues[1].show(&mut places[0].clone());
    queues[0].release(taken, Some(&mut pace), || {}).expect("no I/O");
    let page = || Page::of(&machine.with(|kernel| kernel.page.clone()));
    assert_eq!(page().waiters().count(), 999);
    assert_eq!(page().turn().map(|turn| turn.slot), Some(places[0].slot));

    for (queue, place) in queues[1..].iter().zip(&places) {
        queue.leave(place);
    }
    assert!(page().extends_in_vain());
    let behind = SLOTS - FIRST_SLOTS;
    let behind = Range { start: slot_range(FIRST_SLOTS).start, len: behind as i64 };
    let kept = queues[0].sidecar().conflicting(behind).expect("no I/O");
    assert!(kept.is_none(), "they keep none for their next waiters");
    passes_on(&queues[0]);
    assert!(page().waiters().next().is_none() && !page().extends_in_vain());
}

/// Threads of shuttle, which runs one at a time and chooses which. Each call takes time, and a wait may end at
/// any moment, woken or not.
#[derive(Clone)]
struct Schedule(Arc<shuttle::sync::Mutex<Kernel>>);

impl Machine for Schedule {
    fn with<R>(&self, act: impl FnOnce(&mut Kernel) -> R) -> R {
        act(&mut self.0.lock().expect("no panic in it"))
    }

    fn pause(&self, limit: Duration) -> bool {
        self.with(|kernel| kernel.clock += limit.as_nanos() as u64 / 4);
        shuttle::thread::yield_now();
        false
    }

    fn wake_all(&self) {}
}

fn explore(processes: usize, hostile: bool) {
    let body = move || {
        let machine = Schedule(Arc::new(shuttle::sync::Mutex::new(Kernel::new())));
        let mut threads: Vec<_> = (0..processes)
            .map(|id| {
                let process = Process::new(&machine, id, usize::MAX);
                shuttle::thread::spawn(move || {
                    process.work(3, Duration::ZERO);
                })
            })
            .collect();
        if hostile {
            let machine = machine.clone();
            threads.push(shuttle::thread::spawn(move || {
                use shuttle::rand::Rng;
                let mut random = shuttle::rand::thread_rng();
                for _ in 0..20 {
                    let at = random.gen_range(16..PAGE);
                    let byte = random.gen_range(0..4);
                    machine.with(|kernel| kernel.page[at] = byte);
                    shuttle::thread::yield_now();
                }
            }));
        }
        for thread in threads {
            thread.join().expect("an exclusion failed");
        }
    };
    // If a schedule does not end, a process waits for ever.
    let mut config = shuttle::Config::new();
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    let runner =
        shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new(1500), config.clone());
    runner.run(body);
    let runner = shuttle::Runner::new(shuttle::scheduler::PctScheduler::new(3, 500), config);
    runner.run(body);
}

#[test]
fn every_schedule_ends_with_one_holder_at_a_time() {
    explore(2, false);
    explore(3, false);
}

#[test]
fn every_schedule_with_a_hostile_page_ends_with_one_holder_at_a_time() {
    explore(3, true);
}
