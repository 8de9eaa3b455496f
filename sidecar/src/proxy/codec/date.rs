//! The `Date` field, which is the same for a second.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// Bytes of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
const LENGTH: usize = 29;

thread_local! {
    static WRITTEN: RefCell<Written> = const { RefCell::new(Written { second: u64::MAX, text: [0; LENGTH] }) };
}

struct Written {
    second: u64,
    text: [u8; LENGTH],
}

/// Hands the date of now to `take`.
pub(super) fn with_date<T>(take: impl FnOnce(&[u8]) -> T) -> T {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    WRITTEN.with_borrow_mut(|written| {
        if written.second != second {
            written.second = second;
            // It has room for every year of four digits; of a later one the begin would stand there.
            let _ = write!(&mut written.text[..], "{}", HttpDate::from(now));
        }
        take(&written.text)
    })
}
