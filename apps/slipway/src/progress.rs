//! Progress bars, drawn by the command line only: workers report numbers, never pictures.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::printer::Printer;

/// A bar of bytes on a terminal; nothing elsewhere.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar that counts bytes.
    pub(crate) fn bytes(printer: Printer, message: &str) -> Self {
        let target =
            if printer.draws() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template(
            "{msg:24!} [{bar:30}] {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(message.to_owned());
        Self(bar)
    }

    /// Where it is.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// What is being done now.
    pub(crate) fn phase(&self, message: &str) {
        if self.0.message() != message {
            self.0.set_message(message.to_owned());
        }
    }

    /// Says something while the bar is out of the way.
    pub(crate) fn pause(&self, say: impl FnOnce()) {
        self.0.suspend(say);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
