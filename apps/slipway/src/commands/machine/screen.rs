//! A guest's display and keyboard.

use std::path::Path;

use clap::Args;
use rest::wire::SendKeys;

use crate::commands::write_new;
use crate::failure::Result;
use crate::session::Session;

/// What to type.
#[derive(Debug, Args)]
pub(crate) struct SendKeysArgs {
    /// Name, id, or the beginning of either
    machine: String,
    /// Keys pressed together, as ctrl-alt-del, f8 or enter; after the text, if there is one
    #[arg(required_unless_present = "text")]
    keys: Vec<String>,
    /// Text, typed as on a US keyboard
    #[arg(long)]
    text: Option<String>,
}

pub(super) async fn send_keys(s: &Session, args: SendKeysArgs) -> Result {
    s.client.send_keys(&args.machine, &SendKeys { text: args.text, keys: args.keys }).await?;
    Ok(())
}

pub(super) async fn screenshot(s: &Session, word: &str, file: &Path) -> Result {
    let picture = s.client.screenshot(word).await?;
    write_new(file, &picture.bytes)?;
    if picture.media_type != "image/png" {
        s.printer.talk(format!("the picture is {}: this QEMU makes no PNG", picture.media_type));
    }
    s.printer.line(file.display().to_string())
}
