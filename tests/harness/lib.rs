//! What the stories are told with: the built `slipway`, scratch folders, a daemon, real files, independent readers,
//! test guests.
//!
//! A story goes through the command line, as a user would; it uses the libraries only where no command shows what it
//! must know. What a story needs and does not find makes it print `skipped: why` and end: [`skip!`] and [`need!`]. Wrong
//! answers panic, with everything the command printed.
//!
//! This crate decides nothing about right or wrong: readers that are not ours do ([`oracle`]).

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::panic, reason = "tests talk to the person who runs them")]

pub mod api;
pub mod binary;
pub mod bundle;
pub mod corpus;
pub mod daemon;
pub mod guest;
pub mod hostile;
pub mod oracle;
pub mod real;
pub mod scratch;
pub mod watch;

pub use api::Api;
pub use binary::{Ran, slipway};
pub use daemon::Daemon;
pub use guest::Guest;
pub use real::Sample;
pub use scratch::Scratch;

/// Ends the story with the reason why it could not be told.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        println!("skipped: {}", format_args!($($why)*));
        return;
    }};
}

/// The value, or the end of the story: for everything that returns `Result<_, String>` with the reason.
#[macro_export]
macro_rules! need {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(why) => $crate::skip!("{why}"),
        }
    };
}
