//! The objects of this process, as the dynamic linker loaded them: which functions each defines,
//! and to which functions each is bound. elf(5), dl_iterate_phdr(3)
//!
//! dlsym(3) would tell more, but takes the dynamic linker's lock, which is held while a library's
//! constructor runs. If a constructor waited for a thread that opens a database, both would wait
//! for ever. dl_iterate_phdr(3) takes another lock, and only while it walks the list.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{Elf64_Phdr, Elf64_Sym, dl_phdr_info};

#[cfg(target_arch = "x86_64")]
mod relocation {
    pub(super) const NUMBER: u64 = 1;
    pub(super) const GLOBAL: u64 = 6;
    pub(super) const JUMP: u64 = 7;
}
#[cfg(target_arch = "aarch64")]
mod relocation {
    pub(super) const NUMBER: u64 = 257;
    pub(super) const GLOBAL: u64 = 1025;
    pub(super) const JUMP: u64 = 1026;
}

const DT_PLTRELSZ: i64 = 2;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const DT_RELACOUNT: i64 = 0x6fff_fff9;
const STT_FUNC: u8 = 2;

#[repr(C)]
struct Dyn {
    tag: i64,
    value: u64,
}

#[repr(C)]
struct Rela {
    offset: u64,
    info: u64,
    addend: i64,
}

/// An object, valid while [`with_objects`] keeps the list unchanged.
pub(crate) struct Object<'a> {
    /// Where it is loaded.
    pub(crate) base: usize,
    /// Its path; empty for the program.
    pub(crate) path: &'a CStr,
    headers: &'a [Elf64_Phdr],
    tables: Tables,
}

/// The tables of an object's dynamic section; 0 for a table that it does not have.
#[derive(Default)]
struct Tables {
    symbols: usize,
    names: usize,
    gnu_hash: usize,
    hash: usize,
    /// Where the relocations begin, and their length in bytes.
    jumps: (usize, usize),
    others: (usize, usize),
    /// How many of the other relocations come first and name no symbol.
    relative: usize,
}

/// How many objects were ever loaded, and how many unloaded. While neither number changes, the list
/// is the same.
pub(crate) type Age = (u64, u64);

/// Calls `f` with the age of the list, and a function that reads the list. During the call glibc
/// loads and unloads nothing, so `f` must not call dlopen(3) and the like. (musl may load during
/// the call, and unloads only what it failed to load.)
pub(crate) fn with_objects<T>(f: impl FnOnce(Age, &dyn Fn() -> Vec<Object<'static>>) -> T) -> T {
    struct Call<'a> {
        run: &'a mut dyn FnMut(Age),
    }
    unsafe extern "C" fn outer(info: *mut dl_phdr_info, _: usize, call: *mut c_void) -> c_int {
        // SAFETY: the C library passes an object, and what it was given for this call.
        unsafe {
            let age = ((*info).dlpi_adds, (*info).dlpi_subs);
            ((*call.cast::<Call<'_>>()).run)(age);
        }
        // One call is enough: it holds the lock, which one thread may take twice.
        1
    }
    let mut f = Some(f);
    let mut result = None;
    let mut run = |age| {
        if let Some(f) = f.take() {
            result = Some(f(age, &read));
        }
    };
    let mut call = Call { run: &mut run };
    // SAFETY: `outer` takes such a call, which lives until this is over.
    unsafe { libc::dl_iterate_phdr(Some(outer), (&raw mut call).cast()) };
    match (result, f) {
        (Some(result), _) => result,
        // There is no object, so not even this library.
        (None, Some(f)) => f((0, 0), &Vec::new),
        (None, None) => unreachable!("it was called, and has returned"),
    }
}

/// Reads the list.
fn read() -> Vec<Object<'static>> {
    unsafe extern "C" fn one(info: *mut dl_phdr_info, _: usize, all: *mut c_void) -> c_int {
        // SAFETY: the C library passes an object, and what it was given for this call. The object stays while the list is
        // kept, and its headers are as many as it says.
        unsafe {
            let info = &*info;
            if info.dlpi_name.is_null() || info.dlpi_phdr.is_null() {
                return 0;
            }
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            let base = info.dlpi_addr as usize;
            if let Some(tables) = Tables::of(base, headers) {
                let path = CStr::from_ptr(info.dlpi_name);
                (*all.cast::<Vec<Object<'_>>>()).push(Object { base, path, headers, tables });
            }
        }
        0
    }
    let mut all: Vec<Object<'static>> = Vec::with_capacity(128);
    // SAFETY: `one` takes such a list, which lives until the call is over.
    unsafe { libc::dl_iterate_phdr(Some(one), (&raw mut all).cast()) };
    all
}

impl Tables {
    /// # Safety
    /// These are the program headers of an object that is loaded there.
    unsafe fn of(base: usize, headers: &[Elf64_Phdr]) -> Option<Self> {
        let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC)?;
        let mut entry = base.wrapping_add(dynamic.p_vaddr as usize) as *const Dyn;
        let mut tables = Self::default();
        // glibc has added the base, except where it cannot write: in the kernel's own object. musl
        // never adds it. An object may lie below the address that it was linked for: then the base
        // is negative, and a comparison with it means nothing. A table outside the object is left
        // out.
        let placed = |value: u64| {
            let value = value as usize;
            let places = [value, base.wrapping_add(value)];
            let is_here = |place: &usize| segment(base, headers, *place).is_some();
            places.into_iter().find(is_here).unwrap_or(0)
        };
        // SAFETY: the caller's promise: the section ends with an entry of tag 0.
        unsafe {
            while (*entry).tag != 0 {
                let value = (*entry).value;
                match (*entry).tag {
                    DT_SYMTAB => tables.symbols = placed(value),
                    DT_STRTAB => tables.names = placed(value),
                    DT_GNU_HASH => tables.gnu_hash = placed(value),
                    DT_HASH => tables.hash = placed(value),
                    DT_JMPREL => tables.jumps.0 = placed(value),
                    DT_PLTRELSZ => tables.jumps.1 = value as usize,
                    DT_RELA => tables.others.0 = placed(value),
                    DT_RELASZ => tables.others.1 = value as usize,
                    DT_RELACOUNT => tables.relative = value as usize,
                    _ => {}
                }
                entry = entry.add(1);
            }
        }
        (tables.symbols != 0 && tables.names != 0).then_some(tables)
    }
}

/// The header of the segment of an object that has this address.
fn segment(base: usize, headers: &[Elf64_Phdr], address: usize) -> Option<&Elf64_Phdr> {
    headers.iter().filter(|header| header.p_type == libc::PT_LOAD).find(|header| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        address.wrapping_sub(start) < header.p_memsz as usize
    })
}

impl Object<'_> {
    /// Whether an address lies in this object.
    pub(crate) fn contains(&self, address: usize) -> bool {
        segment(self.base, self.headers, address).is_some()
    }

    /// Whether an address lies in the part that the dynamic linker makes read-only after it has
    /// bound the object.
    fn becomes_read_only(&self, address: usize) -> bool {
        self.headers.iter().filter(|header| header.p_type == libc::PT_GNU_RELRO).any(|header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            let end = start.wrapping_add(header.p_memsz as usize);
            // Whole pages only.
            (page_of(start)..page_of(end)).contains(&address)
        })
    }

    /// The address of the function with this name that the object defines.
    pub(crate) fn find(&self, name: &CStr) -> Option<usize> {
        // SAFETY: they are the tables of an object that is loaded.
        unsafe {
            if self.tables.gnu_hash != 0 {
                self.find_by_gnu_hash(name)
            } else if self.tables.hash != 0 {
                self.find_by_hash(name)
            } else {
                None
            }
        }
    }

    /// # Safety
    /// There is such a table.
    unsafe fn find_by_gnu_hash(&self, name: &CStr) -> Option<usize> {
        let hash = name
            .to_bytes()
            .iter()
            .fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add((*byte).into()));
        // SAFETY: the table has four words, the words of a Bloom filter, buckets, and chains that end with an odd number.
        unsafe {
            let table = self.tables.gnu_hash as *const u32;
            let [buckets, first, blooms, shift] = [0, 1, 2, 3].map(|nth| *table.add(nth));
            if buckets == 0 || blooms == 0 {
                return None;
            }
            let filter = table.add(4).cast::<u64>();
            let word = *filter.add((hash / 64 % blooms) as usize);
            let bits = 1_u64 << (hash % 64) | 1_u64 << (hash.unbounded_shr(shift) % 64);
            if word & bits != bits {
                return None;
            }
            let bucket_table = filter.add(blooms as usize).cast::<u32>();
            let mut symbol = *bucket_table.add((hash % buckets) as usize);
            if symbol < first {
                return None;
            }
            let chains = bucket_table.add(buckets as usize);
            loop {
                let of_symbol = *chains.add((symbol - first) as usize);
                if of_symbol | 1 == hash | 1
                    && let Some(found) = self.function(symbol as usize, name)
                {
                    return Some(found);
                }
                if of_symbol & 1 == 1 {
                    return None;
                }
                symbol += 1;
            }
        }
    }

    /// # Safety
    /// There is such a table.
    unsafe fn find_by_hash(&self, name: &CStr) -> Option<usize> {
        let hash = name.to_bytes().iter().fold(0_u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add((*byte).into());
            let high = hash & 0xf000_0000;
            (hash ^ (high >> 24)) & !high
        });
        // SAFETY: the table has two words, buckets, and chains that end with 0.
        unsafe {
            let table = self.tables.hash as *const u32;
            let buckets = *table;
            if buckets == 0 {
                return None;
            }
            let mut symbol = *table.add(2 + (hash % buckets) as usize);
            while symbol != 0 {
                if let Some(found) = self.function(symbol as usize, name) {
                    return Some(found);
                }
                symbol = *table.add(2 + buckets as usize + symbol as usize);
            }
        }
        None
    }

    /// The address of that symbol, if it is a function of that name and this object defines it.
    ///
    /// # Safety
    /// There is a symbol of that number.
    unsafe fn function(&self, symbol: usize, name: &CStr) -> Option<usize> {
        // SAFETY: the caller's promise; its name is terminated.
        unsafe {
            let symbol = &*(self.tables.symbols as *const Elf64_Sym).add(symbol);
            let is_defined = symbol.st_shndx != 0 && symbol.st_value != 0;
            (is_defined && symbol.st_info & 15 == STT_FUNC && self.name_of(symbol) == name)
                .then(|| self.base.wrapping_add(symbol.st_value as usize))
        }
    }

    /// # Safety
    /// It is a symbol of this object.
    unsafe fn name_of(&self, symbol: &Elf64_Sym) -> &CStr {
        // SAFETY: the caller's promise; its name is terminated.
        unsafe {
            CStr::from_ptr(
                (self.tables.names as *const std::ffi::c_char).add(symbol.st_name as usize),
            )
        }
    }

    /// The places where the object keeps addresses of functions, its own or others', whose names
    /// begin with `prefix`.
    pub(crate) fn slots(&self, prefix: &str) -> Vec<(&CStr, Slot)> {
        let relative = self.tables.relative * size_of::<Rela>();
        let others = self.tables.others;
        let others = (others.0 + relative.min(others.1), others.1.saturating_sub(relative));
        let mut found = Vec::new();
        for (start, length) in [self.tables.jumps, others] {
            if start == 0 {
                continue;
            }
            // SAFETY: the relocations of an object that is loaded, and the symbols that they name.
            unsafe {
                let count = length / size_of::<Rela>();
                for relocation in std::slice::from_raw_parts(start as *const Rela, count) {
                    let [kind, symbol] = [relocation.info & 0xffff_ffff, relocation.info >> 32];
                    let is_slot = [relocation::NUMBER, relocation::GLOBAL, relocation::JUMP];
                    if !is_slot.contains(&kind) || symbol == 0 || relocation.addend != 0 {
                        continue;
                    }
                    let symbol = &*(self.tables.symbols as *const Elf64_Sym).add(symbol as usize);
                    let name = self.name_of(symbol);
                    let place = self.base.wrapping_add(relocation.offset as usize);
                    let Some(segment) = segment(self.base, self.headers, place) else { continue };
                    // An address in a packed struct may not be aligned: then no single write can
                    // exchange it.
                    if name.to_bytes().starts_with(prefix.as_bytes())
                        && place.is_multiple_of(align_of::<usize>())
                    {
                        let is_data = kind == relocation::NUMBER;
                        let access = match () {
                            // A text relocation: the place is in code or among constants.
                            () if segment.p_flags & libc::PF_W == 0 => Access::Never,
                            () if self.becomes_read_only(place) => Access::UntilBound,
                            () => Access::Always,
                        };
                        let place = place as *mut usize;
                        found.push((name, Slot { place, access, is_data }));
                    }
                }
            }
        }
        found
    }
}

/// Where the page that has an address begins.
fn page_of(address: usize) -> usize {
    address & !(page_size() - 1)
}

fn page_size() -> usize {
    // SAFETY: a number is asked for.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Whether a page is mapped read-only now; `None` if the kernel does not say. proc_pid_maps(5)
fn is_read_only(page: usize) -> Option<bool> {
    let maps = std::fs::read("/proc/thread-self/maps").ok()?;
    String::from_utf8_lossy(&maps).lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let number = |digits| usize::from_str_radix(digits, 16).ok();
        let is_here = (number(start)?..number(end)?).contains(&page);
        is_here.then(|| fields.next().is_some_and(|access| access.starts_with("r--")))
    })
}

/// Where an object keeps the address of a function.
pub(crate) struct Slot {
    place: *mut usize,
    access: Access,
    /// Whether it is a variable of the object, as in the table that SQLite passes to extensions.
    pub(crate) is_data: bool,
}

/// When the place of an address can be written.
enum Access {
    Always,
    /// Until the dynamic linker has bound the object. Then its page is read-only.
    UntilBound,
    Never,
}

impl Slot {
    /// The address.
    pub(crate) fn get(&self) -> usize {
        // SAFETY: it is an aligned place of an object that is loaded, which the dynamic linker writes whole.
        unsafe { AtomicUsize::from_ptr(self.place) }.load(Ordering::Relaxed)
    }

    /// Exchanges the address if it is still `old`. If that fails, `old` stays. mprotect(2)
    pub(crate) fn exchange(&self, old: usize, new: usize) {
        // SAFETY: as in `get`; and this is called only while the place can be written. The object
        // calls what is there, which is a function of the same type.
        let exchange = || unsafe {
            let place = AtomicUsize::from_ptr(self.place);
            let _ = place.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
        };
        match self.access {
            Access::Always => exchange(),
            Access::UntilBound => {
                let page = page_of(self.place as usize);
                // SAFETY: the page is one of an object that is loaded; what can be read of it stays readable.
                let protect =
                    |how| unsafe { libc::mprotect(page as *mut c_void, page_size(), how) == 0 };
                // While the page can be written, another thread may be binding the object. To make
                // the page read-only now would end the process.
                if is_read_only(page) == Some(true) && protect(libc::PROT_READ | libc::PROT_WRITE) {
                    exchange();
                    protect(libc::PROT_READ);
                }
            }
            Access::Never => {}
        }
    }
}
