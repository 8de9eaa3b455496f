//! Gives back what is resident and not needed: of the program's own file, and of what the allocator holds ready.
//!
//! Starting up reads a document, opens sockets and asks others once, and the kernel maps 64 KiB of the program around
//! everything that is touched. All of that stays resident beside an engine whose memory is scarce. What a segment
//! holds that the program may not write is in its file, word for word: it can be let go of at any time, and what is
//! used comes back from the page cache, at a microsecond for each window.
//!
//! The allocator keeps for each thread what it has freed last. It lets go of it as the thread goes on to allocate: a
//! thread that rests after a crowd has left would hold it for ever, and with each small object its page.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;
use std::slice;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval_at};

/// By then a process has started, as a rule.
const FIRST: Duration = Duration::from_secs(1);

/// Later only what is in use comes back: a load that has ended, a policy that was read. Some dozens of windows in so
/// long a time are nothing.
const AGAIN: Duration = Duration::from_secs(2);

/// Less is not worth a system call. It also leaves out what the kernel maps into every process.
const WORTH: usize = 16 * 1024;

/// Gives back of the program's file after the start, and from time to time.
pub async fn keep_small() {
    let mut ticks = interval_at(tokio::time::Instant::now() + FIRST, AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        give_back();
    }
}

thread_local! {
    static CROWD: Cell<Crowd> = const { Cell::new(Crowd { now: 0, most: 0 }) };
}

/// Connections of a thread.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    now: usize,
    /// The most since the allocator gave back what it held ready.
    most: usize,
}

/// A connection of this thread was opened.
pub fn opened() {
    let crowd = CROWD.get();
    CROWD.set(crowd.with_one_more());
}

/// A connection of this thread is over. When half of a crowd has left, so does what the allocator holds ready for it.
pub fn closed() {
    let (crowd, half_has_left) = CROWD.get().with_one_less();
    CROWD.set(crowd);
    if half_has_left {
        flush_cache();
    }
}

impl Crowd {
    /// Fewer connections leave little behind.
    const LEAST: usize = 16;

    fn with_one_more(self) -> Self {
        let now = self.now + 1;
        Self { now, most: self.most.max(now) }
    }

    /// Also whether half of them have left since that was said last.
    fn with_one_less(self) -> (Self, bool) {
        let now = self.now.saturating_sub(1);
        if self.most >= Self::LEAST && now <= self.most / 2 {
            (Self { now, most: now }, true)
        } else {
            (Self { now, ..self }, false)
        }
    }
}

/// Gives back what the allocator holds ready for this thread: to where the others take it from, and the kernel.
fn flush_cache() {
    // A thread that holds nothing ready has nothing to give back.
    let _ = command(c"thread.tcache.flush");
}

/// Has the allocator do something that takes and gives nothing. Zero, or what went wrong.
#[allow(unsafe_code, reason = "the allocator is told by a C function only")]
fn command(name: &CStr) -> c_int {
    // SAFETY: the name is a C string, and null pointers say that nothing is read and nothing written.
    unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) }
}

/// Gives back everything of the program and its libraries that cannot have been written. Nothing is lost: who uses it
/// next waits for the kernel to map it again.
#[allow(unsafe_code, reason = "the loaded segments are told by a C function only")]
pub fn give_back() {
    // SAFETY: the callback has the type that is asked for, takes no data, and does not unwind. While it runs, glibc and
    // musl hold the lock under which libraries are loaded: what it sees is mapped whole.
    unsafe {
        libc::dl_iterate_phdr(Some(give_back_of), std::ptr::null_mut());
    }
}

/// Gives back of one loaded object.
#[allow(unsafe_code, reason = "C gives a pointer and a length; advice is about memory that others use")]
unsafe extern "C" fn give_back_of(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: `dl_iterate_phdr` calls this with an object that is loaded, and its headers, which are not written.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    let page = rustix::param::page_size();
    for segment in headers.iter().filter_map(|header| unwritten(base, header, page)) {
        // SAFETY: the whole pages of a segment of a file that is mapped as private and was never writable. What the linker
        // writes and protects afterwards lies in segments that are. So each page is as it is in the file, and the kernel
        // brings it back, unchanged, to whoever reads or runs it next.
        let _ = unsafe {
            let start = std::ptr::with_exposed_provenance_mut(segment.start);
            rustix::mm::madvise(start, segment.len(), rustix::mm::Advice::LinuxDontNeed)
        };
    }
    0
}

/// The whole pages of a segment that the program may not write, where there are enough of them.
fn unwritten(base: u64, header: &libc::Elf64_Phdr, page: usize) -> Option<std::ops::Range<usize>> {
    if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
        return None;
    }
    let start = usize::try_from(base.checked_add(header.p_vaddr)?).ok()?;
    let end = start.checked_add(usize::try_from(header.p_memsz).ok()?)?;
    let whole = start.next_multiple_of(page)..end / page * page;
    (whole.len() >= WORTH).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn header(kind: u32, flags: u32, start: u64, length: u64) -> libc::Elf64_Phdr {
        libc::Elf64_Phdr {
            p_type: kind,
            p_flags: flags,
            p_offset: 0,
            p_vaddr: start,
            p_paddr: start,
            p_filesz: length,
            p_memsz: length,
            p_align: PAGE as u64,
        }
    }

    #[test]
    fn only_whole_pages_that_cannot_have_been_written_are_given_back() {
        let at =
            |flags, start, length| unwritten(0x10_0000, &header(libc::PT_LOAD, flags, start, length), PAGE);
        assert_eq!(at(libc::PF_R | libc::PF_X, 0x2000, 0x2_0000), Some(0x10_2000..0x12_2000));
        assert_eq!(at(libc::PF_R, 0x2001, 0x2_0000), Some(0x10_3000..0x12_2000), "a page begun is another's");
        assert_eq!(at(libc::PF_R | libc::PF_W, 0x2000, 0x2_0000), None, "it may have been written");
        assert_eq!(at(libc::PF_R, 0x2000, 0x1000), None, "too little");
        assert_eq!(unwritten(0, &header(libc::PT_GNU_RELRO, libc::PF_R, 0, 0x2_0000), PAGE), None);
        assert_eq!(unwritten(u64::MAX, &header(libc::PT_LOAD, libc::PF_R, 1, 0x2_0000), PAGE), None);
    }

    #[test]
    fn a_crowd_that_leaves_is_noticed_at_each_half_and_few_who_come_and_go_are_not() {
        let leave = |from: usize, to: usize| {
            let mut crowd = (0..from).fold(Crowd { now: 0, most: 0 }, |crowd, _| crowd.with_one_more());
            let mut at = Vec::new();
            for left in (to..from).rev() {
                let (less, half_has_left) = crowd.with_one_less();
                crowd = less;
                at.extend(half_has_left.then_some(left));
            }
            at
        };
        assert_eq!(leave(1000, 0), [500, 250, 125, 62, 31, 15]);
        assert!(leave(1000, 501).is_empty());
        assert!(leave(15, 0).is_empty());
    }

    #[test]
    fn the_allocator_knows_what_it_is_told() {
        assert_eq!(command(c"thread.tcache.flush"), 0);
        assert_ne!(command(c"thread.tcache.flush_all"), 0);
    }

    #[test]
    fn a_process_goes_on_when_everything_was_given_back_while_it_runs() {
        let data = vec![7; 100_000];
        let digest = || ring::digest::digest(&ring::digest::SHA256, &data).as_ref().to_vec();
        let expected = digest();
        std::thread::scope(|scope| {
            let others = scope.spawn(|| (0..50).all(|_| digest() == expected));
            while !others.is_finished() {
                give_back();
                assert_eq!(format!("{:?}", "a".parse::<u8>()), "Err(ParseIntError { kind: InvalidDigit })");
            }
            assert!(others.join().unwrap());
        });
    }
}
