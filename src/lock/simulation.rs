//! The queue in simulated time, one call after the other: processes with several clients each, in an order that
//! a fuzzer or a property test chooses, on an honest or a hostile page.
//!
//! Unlike in `model.rs`, every call runs to its end before the next. So after each of them the simulation knows
//! which client has waited since when, and can say which may have the lock and which must not be refused it.

use std::cell::{RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::holder::{WAITERS_BYTE, WRITE_RANGE};
use super::kernel::Kernel;
use super::page::{LENGTH, PAGE, Page, Turn};
use super::queue::{Pace, Place, Purpose, Queue, QueueFile, Rank, Taken, Until};
use crate::sys::{Range, ThreadUsage};

/// How long newcomers may overtake the first waiter, in ns.
const OVERTAKING_NS: u64 = 2_000_000;
/// By how much the time since when a waiter waits may be wrong, in ns: the page rounds at both ends.
const TICK_NS: u64 = 2 << 16;
/// How many processes there are.
const PROCESSES: usize = 3;
/// How many clients each process has.
const CLIENTS: usize = 2;

/// A process's view of the sidecar.
struct Process {
    id: usize,
    world: Rc<RefCell<World>>,
}

/// What a process's own clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// The time of its namespace, which is this many ns ahead.
    Ahead(i64),
    /// Always this time: a preloaded library stops the clock.
    #[cfg_attr(not(test), allow(dead_code, reason = "fuzzers have no clocks to choose"))]
    StandsStill(u64),
}

struct World {
    kernel: Kernel,
    clocks: [Clock; PROCESSES],
    /// By how much the clock that all processes share was set, in ns.
    set_by: i64,
    /// The sidecar's length, in bytes. A page that was cut short cannot be read.
    len: usize,
    /// How many system calls were made so far.
    calls: usize,
    /// What the calling thread has done so far, if the system tells.
    usage: Option<ThreadUsage>,
}

impl Process {
    /// Counts a system call, and returns the world to make it in.
    fn call(&self) -> RefMut<'_, World> {
        let mut world = self.world.borrow_mut();
        world.calls += 1;
        world
    }
}

impl QueueFile for Process {
    fn read(&self) -> io::Result<Page> {
        let mut world = self.call();
        world.kernel.clock += 1000;
        if world.len < LENGTH {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Page::of(&world.kernel.page))
    }

    fn lengthen(&self) {
        let _ = self.write(LENGTH as u64 - 1, &[0]);
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut world, at) = (self.call(), at as usize);
        world.kernel.page[at..at + bytes.len()].copy_from_slice(bytes);
        world.len = world.len.max(at + bytes.len());
        Ok(())
    }

    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        Ok(self.call().kernel.lock(self.id, range, shared))
    }

    fn unlock(&self, range: Range) -> io::Result<()> {
        self.call().kernel.unlock(self.id, range);
        Ok(())
    }

    fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        Ok(self.call().kernel.conflicting(self.id, range, false))
    }

    fn wait(&self, slot: usize, word: u32, limit: Duration) -> bool {
        let mut world = self.world.borrow_mut();
        if Page::of(&world.kernel.page).word(slot) != word {
            return true;
        }
        world.kernel.clock += limit.as_nanos() as u64;
        false
    }

    fn wake(&self, _: usize) {}

    fn sleep(&self, duration: Duration) {
        self.world.borrow_mut().kernel.clock += duration.as_nanos() as u64;
    }

    fn now(&self) -> u64 {
        let world = self.world.borrow();
        match world.clocks[self.id] {
            Clock::Ahead(by) => world.kernel.clock.wrapping_add_signed(by),
            Clock::StandsStill(at) => at,
        }
    }

    fn kernel_now(&self) -> u64 {
        self.now()
    }

    fn shared_now(&self) -> u64 {
        let world = self.world.borrow();
        world.kernel.clock.wrapping_add_signed(world.set_by)
    }

    fn thread_usage(&self) -> Option<ThreadUsage> {
        self.world.borrow().usage
    }

    fn process(&self) -> (u32, [u8; 12]) {
        (self.id as u32, *b"simulation\0\0")
    }
}

/// One connection.
#[derive(Default)]
struct Client {
    pace: Pace,
    place: Option<Place>,
    /// Its number in the order of joining the queue, and when it joined, in ns.
    joined: (u64, u64),
    held: Option<Taken>,
    /// When it last released the lock, in ns.
    released_at: u64,
    /// When it last tried for the lock from its place in the queue, in ns.
    came_at: u64,
}

/// One event of a script. Clients are numbered through all processes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A client that has the lock releases it; any other client tries for it.
    Go(usize),
    /// A client that waits sleeps for this many microseconds, and tries if an attempt is worth
    /// making.
    Wait(usize, u16),
    /// A client gives up.
    Leave(usize),
    /// A process is killed.
    Kill(usize),
    /// This many microseconds pass.
    Pass(u16),
    /// The clock is set by this many ms.
    #[cfg_attr(not(test), allow(dead_code, reason = "fuzzers write to the page instead"))]
    Set(i32),
    /// A stranger writes a byte of the page.
    Write(u16, u8),
    /// A stranger cuts the sidecar short.
    Cut,
}

pub(super) struct Simulation {
    world: Rc<RefCell<World>>,
    /// `None` for a process that was killed.
    queues: Vec<Option<Queue<Process>>>,
    clients: Vec<Client>,
    /// Whether only the queue writes to the page, and the clock is not set.
    honest: bool,
    /// How many have joined the queue.
    joins: u64,
    /// The client that gave the last turn.
    giver: Option<usize>,
    /// When it gave that turn, in ns.
    gave_at: u64,
}

impl Simulation {
    pub(super) fn new() -> Self {
        Self::with_clocks([Clock::Ahead(0); PROCESSES])
    }

    /// A simulation whose processes have these clocks.
    pub(super) fn with_clocks(clocks: [Clock; PROCESSES]) -> Self {
        let world =
            World { kernel: Kernel::new(), clocks, set_by: 0, len: LENGTH, calls: 0, usage: None };
        let world = Rc::new(RefCell::new(world));
        let queue = |id| Some(Queue::new(Process { id, world: Rc::clone(&world) }));
        Self {
            queues: (0..PROCESSES).map(queue).collect(),
            clients: (0..PROCESSES * CLIENTS).map(|_| Client::default()).collect(),
            honest: true,
            joins: 0,
            giver: None,
            gave_at: 0,
            world,
        }
    }

    pub(super) fn run(&mut self, step: Step) {
        match step {
            Step::Go(client) => {
                let client = client % self.clients.len();
                if self.clients[client].held.is_some() {
                    self.release(client)
                } else {
                    self.go(client)
                }
            }
            Step::Wait(client, us) => self.wait(client % self.clients.len(), us),
            Step::Leave(client) => self.leave(client % self.clients.len()),
            Step::Kill(process) => {
                let process = process % PROCESSES;
                self.queues[process] = None;
                self.world.borrow_mut().kernel.kill(process);
                for client in &mut self.clients[process * CLIENTS..][..CLIENTS] {
                    *client = Client::default();
                }
            }
            Step::Pass(us) => self.world.borrow_mut().kernel.clock += u64::from(us) * 1000,
            Step::Set(ms) => {
                self.honest = false;
                self.world.borrow_mut().set_by += i64::from(ms) * 1_000_000;
            }
            Step::Write(at, byte) => {
                self.honest = false;
                self.world.borrow_mut().kernel.page[usize::from(at) % PAGE] = byte;
            }
            Step::Cut => {
                self.honest = false;
                self.world.borrow_mut().len = 0;
            }
        }
    }

    /// Runs all clients to their end: holders release the lock, and every waiter gets it.
    pub(super) fn end(&mut self) {
        /// Each stopped client and each forged field of the page costs one turn.
        const ROUNDS: usize = 8;
        for round in 0.. {
            let waiting = self.clients.iter().filter(|client| client.place.is_some()).count();
            for client in 0..self.clients.len() {
                if self.clients[client].held.is_some() {
                    self.release(client);
                }
                self.wait(client, 60_000);
                if self.clients[client].held.is_some() {
                    self.release(client);
                }
            }
            if waiting == 0 {
                break;
            }
            assert!(round < ROUNDS, "{waiting} are lost in the queue");
        }
        let world = self.world.borrow();
        let is_left = |(_, range, _): &&(usize, Range, bool)| range.start >= WRITE_RANGE.start - 1;
        let left = world.kernel.locks.iter().find(is_left);
        assert!(left.is_none(), "{left:?} is still locked");
        drop(world);
        let left = self.queues.iter().flatten().next().map(Queue::waiters).unwrap_or_default();
        assert!(!self.honest || left.is_empty(), "{left:?} are still on the page");
    }

    fn queue(&self, client: usize) -> Option<&Queue<Process>> {
        self.queues[client / CLIENTS].as_ref()
    }

    fn now(&self) -> u64 {
        self.world.borrow().kernel.clock
    }

    /// The clock by which turns expire.
    fn shared_now(&self) -> u64 {
        self.now().wrapping_add_signed(self.world.borrow().set_by)
    }

    /// Tries for the lock, and joins the queue if that is in vain.
    fn go(&mut self, client: usize) {
        let process = client / CLIENTS;
        let Some(queue) = &self.queues[process] else { return };
        let siblings = process * CLIENTS..(process + 1) * CLIENTS;
        let is_siblings = siblings.into_iter().any(|other| self.clients[other].held.is_some());
        let now = self.now();
        let place = self.clients[client].place;
        let page = Page::of(&self.world.borrow().kernel.page);
        // As `Database` does: connections of one process exclude each other by a flag.
        let taken = if is_siblings {
            None
        } else {
            let (pace, own_now) = (&mut self.clients[client].pace, queue.sidecar().now());
            queue.try_acquire(own_now, Purpose::Write, place.as_ref(), pace).expect("no I/O")
        };
        self.note_giver(client, page.turn());
        if place.is_some() && !is_siblings {
            self.clients[client].came_at = now;
        }
        let queue = self.queues[process].as_ref().expect("it lives");
        let Some(taken) = taken else {
            if self.honest && !is_siblings {
                self.check_refusal(client, now, &page);
            }
            match place {
                Some(place) => queue.was_refused(&place),
                None => {
                    let waited = Duration::from_nanos(self.now() - now);
                    let mut place = queue.join(Rank::Last, waited, Purpose::Write);
                    if let Some(place) = &mut place {
                        queue.show(place);
                    }
                    self.joins += 1;
                    (self.clients[client].place, self.clients[client].joined) =
                        (place, (self.joins, now));
                }
            }
            return;
        };
        let inside = self.world.borrow_mut().kernel.inside.replace(process);
        assert_eq!(inside, None, "two processes have the write lock");
        if self.honest {
            self.check_order(client, taken, now, &page);
        }
        if let Some(place) = self.clients[client].place.take() {
            queue.leave(&place);
        }
        self.clients[client].held = Some(taken);
    }

    fn release(&mut self, client: usize) {
        let Some(taken) = self.clients[client].held.take() else { return };
        self.world.borrow_mut().kernel.inside = None;
        let Some(queue) = &self.queues[client / CLIENTS] else { return };
        let before = Page::of(&self.world.borrow().kernel.page).turn();
        let pace = &mut self.clients[client].pace;
        queue.release(taken, Some(pace), || {}).expect("no I/O");
        self.clients[client].released_at = self.now();
        self.note_giver(client, before);
    }

    /// Notes that a client gave a turn: each client that releases the lock may give one, also a
    /// waiter that would have overtaken another.
    fn note_giver(&mut self, client: usize, before: Option<Turn>) {
        if Page::of(&self.world.borrow().kernel.page).turn() != before {
            (self.giver, self.gave_at) = (Some(client), self.now());
        }
    }

    fn wait(&mut self, client: usize, us: u16) {
        let Some(mut place) = self.clients[client].place else { return };
        let Some(queue) = self.queue(client) else { return };
        let limit = Duration::from_micros(us.into());
        let is_worth_trying = queue.wait(&mut place, limit, Until::Sign);
        self.clients[client].place = Some(place);
        if is_worth_trying.is_some() {
            self.go(client);
        } else if self.honest {
            self.check_announcement(client);
        }
    }

    fn leave(&mut self, client: usize) {
        let Some(place) = self.clients[client].place.take() else { return };
        if let Some(queue) = self.queue(client) {
            queue.leave(&place);
        }
    }

    /// The places of living clients that came before this one, and since when they have waited.
    fn earlier(&self, client: usize) -> Vec<(Place, u64)> {
        let Client { place, joined: (nth, _), .. } = &self.clients[client];
        let nth = place.map_or(u64::MAX, |_| *nth);
        let others = self.clients.iter().filter(|other| other.joined.0 < nth);
        others.filter_map(|other| Some((other.place?, other.joined.1))).collect()
    }

    /// The client has slept to the end of its time: holders must know that it waits. "It writes the
    /// ticket to its slot [...] Then it locks byte 8191 shared, and sleeps on the slot's futex
    /// word." But "waiters cannot lock byte 8191 while a holder has it."
    fn check_announcement(&self, client: usize) {
        let world = self.world.borrow();
        let mut waiters = world.kernel.locks.iter().filter(|(_, range, _)| {
            range.start <= WAITERS_BYTE
                && (range.len == 0 || WAITERS_BYTE < range.start + range.len)
        });
        let is_known = waiters.any(|(process, _, shared)| *process == client / CLIENTS || !*shared);
        assert!(is_known, "client {client} tells nobody that it waits");
    }

    /// The client was refused while the page was as `page`. That is right if somebody has the lock,
    /// if a living client that came earlier has the turn, or if the client waits and another that
    /// came earlier "has waited 2 ms".
    fn check_refusal(&self, client: usize, now: u64, page: &Page) {
        let is_held = self.world.borrow().kernel.inside.is_some();
        let turn = page.turn().filter(|turn| turn.binds(self.shared_now()));
        let waits = self.clients[client].place.is_some();
        let comes_first = self.earlier(client).iter().any(|(place, since)| {
            let is_overdue = waits && now - since + TICK_NS >= OVERTAKING_NS;
            is_overdue || turn.is_some_and(|turn| turn.is_for(place.slot, place.ticket))
        });
        assert!(is_held || comes_first, "client {client} is refused a lock that is nobody's");
    }

    /// The client got the lock while the page was as `page`. The quotations are from
    /// docs/locking-protocol.md.
    fn check_order(&self, client: usize, taken: Taken, now: u64, page: &Page) {
        let Client { place, released_at, came_at, .. } = self.clients[client];
        let earlier = self.earlier(client);
        // "A waiter may get the lock while an earlier waiter still sleeps and has waited 2 ms. Unless it
        // has the turn itself, it then releases the lock and gives the earlier waiter the turn."
        let turn = page.turn().filter(|turn| turn.binds(self.shared_now()));
        let is_its_turn =
            turn.zip(place).is_some_and(|(turn, place)| turn.is_for(place.slot, place.ticket));
        let overtaken = earlier.iter().find(|(earlier, since)| {
            let sleeps = page.waiter(earlier.slot).is_some_and(|it| it.sleeps(self.shared_now()));
            place.is_some() && !is_its_turn && sleeps && now - since >= OVERTAKING_NS + TICK_NS
        });
        assert_eq!(overtaken, None, "client {client} overtakes from its place");
        // "Then connections that came later are refused until the waiter has the lock, or 50 ms have
        // passed."
        let has_turn = |(place, _): &&(Place, u64)| {
            turn.is_some_and(|turn| turn.is_for(place.slot, place.ticket))
        };
        let passed_over = earlier.iter().find(has_turn);
        if passed_over.is_none() {
            return;
        }
        // "A process that finds byte 8191 free does not look at the page, unless it gave the turn itself."
        let gave_it = self.giver.is_some_and(|giver| giver / CLIENTS == client / CLIENTS);
        let was_not_told = taken == Taken::Uncontended && !gave_it;
        // "A holder in a tight loop wakes no waiter within its slice [...] It goes on, even in a turn that
        // another process has given meanwhile."
        let is_in_tight_loop = now - released_at < 100_000 && place.is_none();
        // If the clock stands still, the number of transactions ends a slice.
        let own_clock = self.world.borrow().clocks[client / CLIENTS];
        let is_timeless = matches!(own_clock, Clock::StandsStill(_));
        let is_in_slice = (is_in_tight_loop && now - came_at < 4_000_000 || is_timeless)
            && (self.giver != Some(client) || self.gave_at < came_at);
        assert!(
            was_not_told || is_in_slice,
            "client {client} takes the lock in another's turn: {passed_over:?}"
        );
    }
}

/// Runs clients by a script, on a page that begins with `page` and that strangers write to meanwhile.
///
/// # Panics
/// If two have the write lock, or one waits for ever.
#[cfg(feature = "fuzzing")]
pub fn hostile_page(page: &[u8], script: &[u8]) {
    let mut simulation = Simulation::new();
    simulation.honest = false;
    {
        let mut world = simulation.world.borrow_mut();
        let n = page.len().min(PAGE);
        world.kernel.page[..n].copy_from_slice(&page[..n]);
        // A page can name any time; some of them should be near.
        world.kernel.clock = 1 << 40;
    }
    for step in script.chunks_exact(4) {
        let [what, which, low, high] = [step[0], step[1], step[2], step[3]];
        let (which, number) = (usize::from(which), u16::from_le_bytes([low, high]));
        simulation.run(match what % 16 {
            0..=5 => Step::Go(which),
            6..=10 => Step::Wait(which, number),
            11 => Step::Leave(which),
            12 => Step::Kill(which),
            13 => Step::Pass(number),
            14 => Step::Write(number, step[1]),
            _ => Step::Cut,
        });
    }
    simulation.end();
}

#[cfg(test)]
mod tests;
