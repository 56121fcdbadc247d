//! How SQLite finds the VFS: registration, the extension's entry points, the callback for each
//! connection that opens, and the handlers of fork(2).
#![allow(unsafe_code)]

mod connect_hook;
mod extension;
mod fork;

use std::ffi::{CStr, CString};
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::ffi::host::Host;
use crate::ffi::{ResultCode, copies, sqlite3_vfs};
use crate::options::Options;
use crate::sys::fork::ForkMutex;
use crate::vfs::{self, Instance, OF_THE_SYSTEM};

/// The instances that are registered now. Locked while one is registered or unregistered, before
/// any other lock of ours and SQLite's own, and while a thread forks. Of SQLite's callbacks, only
/// an extension's entry point takes it.
static REGISTERED: ForkMutex<Vec<&'static Instance>> = ForkMutex::new(Vec::new());

/// Registers the VFS that `options` describe with `host`. A second call only applies
/// `make_default`. If the application has unregistered the VFS, it registers the VFS again.
///
/// # Errors
/// [`Error::InvalidName`], [`Error::AtFork`], [`Error::NameTaken`], [`Error::Sqlite`], and those of [`base_for`].
pub(crate) fn register(host: Host, options: &Options) -> Result<(), Error> {
    let name = to_c(options.name())?;
    fork::watch().map_err(|e| Error::AtFork { errno: e.raw_os_error().unwrap_or_default() })?;
    let on_connect = connect_hook::of(copies::number_of(&host));
    let mut registered = REGISTERED.lock();
    let is_taken = || Error::NameTaken { name: options.name().to_owned() };
    let make_default = |vfs| {
        if options.make_default() {
            base_for(&host, options)?;
            // SAFETY: it is registered already, and a registered VFS is complete and is not freed.
            check(unsafe { host.register_vfs(vfs, true) })?;
        }
        Ok(())
    };
    let other = host.find_vfs(Some(&name));
    if let Some(known) = registered.iter().find(|known| known.is(&host, options.name())) {
        if !known.options.same_vfs(options) || !other.is_null() && other != known.vfs {
            return Err(is_taken());
        }
        // The application may have removed both by sqlite3_vfs_unregister(), sqlite3_shutdown() or
        // sqlite3_reset_auto_extension(). SQLite ignores a callback that it already has.
        check(host.add_auto_extension(on_connect))?;
        if other.is_null() {
            // SAFETY: an instance is complete and never freed.
            check(unsafe { host.register_vfs(known.vfs, false) })?;
        }
        return make_default(known.vfs);
    }
    if !other.is_null() {
        // Another copy of this library may have registered it: that VFS keeps its options.
        // SAFETY: SQLite found it, so it is a registered VFS.
        return match unsafe { vfs::base_of_ours(other) } {
            Some(_) => make_default(other),
            None => Err(is_taken()),
        };
    }
    let (base, encrypts) = base_for(&host, options)?;
    // Before the instance is made: this may run out of memory, and an instance replaces system
    // calls for good.
    check(host.add_auto_extension(on_connect))?;
    // SAFETY: SQLite found it, so it is registered.
    let instance = unsafe { Instance::leak(name, base, host, options, encrypts) };
    // SAFETY: an instance is complete and never freed. This fails only if SQLite is not
    // initialised, but it found a VFS above.
    check(unsafe { host.register_vfs(instance.vfs, options.make_default()) })?;
    registered.push(instance);
    Ok(())
}

/// Unregisters the VFS named `name` from `host` if no database is open through it.
///
/// # Errors
/// [`Error::NotRegistered`], [`Error::InUse`], [`Error::Sqlite`].
#[cfg_attr(not(feature = "linked"), expect(dead_code, reason = "extensions stay"))]
pub(crate) fn unregister(host: Host, name: &str) -> Result<(), Error> {
    let mut registered = REGISTERED.lock();
    let nth = registered
        .iter()
        .position(|known| known.is(&host, name))
        .ok_or_else(|| Error::NotRegistered { name: name.to_owned() })?;
    let databases = registered[nth].context.open_databases.load(Ordering::SeqCst);
    if databases > 0 {
        return Err(Error::InUse { name: name.to_owned(), databases });
    }
    // SAFETY: what is in the list is registered, this one with this library.
    check(unsafe { host.unregister_vfs(registered[nth].vfs) })?;
    registered.swap_remove(nth);
    if !registered.iter().any(|other| other.context.host.same_library(&host)) {
        host.remove_auto_extension(connect_hook::of(copies::number_of(&host)));
    }
    Ok(())
}

/// Keeps other threads from registering until the result is dropped.
#[cfg(unix)]
pub(crate) fn hold_for_fork() -> impl std::any::Any {
    REGISTERED.lock()
}

/// SQLite's answer to a registration.
fn check(rc: ResultCode) -> Result<(), Error> {
    if rc == ResultCode::OK { Ok(()) } else { Err(Error::Sqlite { code: rc.0 }) }
}

/// The name of a VFS, for SQLite.
fn to_c(name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::InvalidName { name: name.to_owned() })
}

/// What SQLite3MultipleCiphers puts before the name of the VFS that it encrypts for.
/// <https://utelle.github.io/SQLite3MultipleCiphers/docs/architecture/arch_vfs/>
const CIPHERS: &str = "multipleciphers-";

/// The base VFS: the one that `options` name, else the default VFS if it is the operating system's.
/// If that is a VFS of this project, whose locks would conflict with ours, the base is that VFS's
/// base. Also returns whether only SQLite3MultipleCiphers may open databases through ours.
///
/// Any other default VFS does something that the application wants, so it must not be left out. But
/// it may find its files by the pointers to their names and methods, which this VFS changes. Then
/// it would be wrong to build on it, so the application must choose. The exception is
/// SQLite3MultipleCiphers, which works over any VFS: ours is then built on the VFS that it encrypts
/// for, and is used only under it.
///
/// # Errors
/// [`Error::InvalidName`], [`Error::NoBaseVfs`]; [`Error::BaseUnfit`], [`Error::BaseUnnamed`]: the
/// VFS cannot be its base.
fn base_for(host: &Host, options: &Options) -> Result<(*mut sqlite3_vfs, bool), Error> {
    let find = |name: Option<&str>| -> Result<(*mut sqlite3_vfs, String), Error> {
        let found = host.find_vfs(name.map(to_c).transpose()?.as_deref());
        if found.is_null() {
            return Err(Error::NoBaseVfs { name: name.unwrap_or("").to_owned() });
        }
        // SAFETY: SQLite found it, so it is a registered VFS, and so is the base of one; it has a
        // terminated name.
        unsafe {
            let vfs = vfs::base_of_ours(found).unwrap_or(found);
            Ok((vfs, CStr::from_ptr((*vfs).zName).to_string_lossy().into_owned()))
        }
    };
    let (base, name) = find(options.base())?;
    let encrypts_for = name.strip_prefix(CIPHERS);
    if options.base().is_some() {
        return match encrypts_for {
            Some(_) => Err(Error::BaseUnfit { name }),
            None => Ok((base, false)),
        };
    }
    if OF_THE_SYSTEM.contains(&&*name) {
        return Ok((base, false));
    }
    match encrypts_for.filter(|system| OF_THE_SYSTEM.contains(system)) {
        Some(system) if !options.make_default() => find(Some(system)).map(|(base, _)| (base, true)),
        Some(_) => Err(Error::BaseUnfit { name }),
        None => Err(Error::BaseUnnamed { name }),
    }
}
