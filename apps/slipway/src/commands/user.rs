//! `slipway user`: who may come in beyond the socket, and what they may do.
//!
//! A password never stands on the command line, where others could see it: it is typed twice without being shown, or read
//! from a file or a pipe.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rest::wire::{MachineGrant, NewUser, User, UserEdit};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cli::examples;
use crate::failure::{Code, Failure, Result};
use crate::printer::Printer;
use crate::session::Session;

/// Largest file that is taken for one with a password in it, in bytes.
const MAX_FILE: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user
    #[command(after_help = examples!("slipway user add ada --grant administrator", "slipway user add backup --grant reader+export --password-file -", "slipway user add kim --machine web=operator", "slipway user add win --grant operator --ntlm"))]
    Add {
        /// Its name
        name: String,
        #[command(flatten)]
        edit: EditArgs,
    },
    /// Change a user
    Set {
        /// Its name
        name: String,
        /// Ask for a new password
        #[arg(long, conflicts_with = "password_file")]
        password: bool,
        /// Let the user sign in by NTLM no longer
        #[arg(long, conflicts_with = "ntlm")]
        no_ntlm: bool,
        /// Keep the user out
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Let the user in again
        #[arg(long)]
        enable: bool,
        /// Take a certificate away
        #[arg(long = "remove-certificate", value_name = "CERTIFICATE")]
        remove_certificates: Vec<String>,
        #[command(flatten)]
        edit: EditArgs,
    },
    /// Users and what they may do
    #[command(visible_alias = "ls")]
    List,
    /// One user
    Show {
        /// Its name
        name: String,
    },
    /// Remove a user
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        name: String,
    },
}

/// What `add` and `set` have in common.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// What is granted everywhere: reader, operator or administrator, with or without +export; export; none
    #[arg(long)]
    grant: Option<String>,
    /// What is granted for one machine; `none` takes it away
    #[arg(long = "machine", value_name = "MACHINE=GRANT")]
    machines: Vec<String>,
    /// A client certificate that is this user, by its SHA-256
    #[arg(long = "certificate", value_name = "CERTIFICATE")]
    certificates: Vec<String>,
    /// Read the password from the first line of a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Let the user sign in by NTLM too, which takes its password: an NT hash of it is kept
    #[arg(long)]
    ntlm: bool,
}

/// `user …`.
pub(crate) async fn user(s: &Session, command: UserCommand) -> Result {
    match command {
        UserCommand::Add { name, edit } => {
            let ask = edit.ntlm || edit.certificates.is_empty();
            let edit = edit.wire(ask)?;
            show(s.printer, &s.client.add_user(&NewUser { name, edit }).await?)
        }
        UserCommand::Set { name, password, no_ntlm, disable, enable, remove_certificates, edit } => {
            let disabled = (disable || enable).then_some(disable);
            let ntlm = (no_ntlm || edit.ntlm).then_some(edit.ntlm);
            let ask = password || edit.ntlm;
            let edit = UserEdit { remove_certificates, disabled, ntlm, ..edit.wire(ask)? };
            show(s.printer, &s.client.edit_user(&name, &edit).await?)
        }
        UserCommand::List => list(s.printer, &s.client.users().await?),
        UserCommand::Show { name } => show(s.printer, &s.client.user(&name).await?),
        UserCommand::Remove { name } => {
            s.client.remove_user(&name).await?;
            s.printer.talk(format!("removed user `{name}`"));
            Ok(())
        }
    }
}

impl EditArgs {
    fn wire(self, ask: bool) -> Result<UserEdit> {
        let machines = self.machines.iter().map(|words| machine_grant(words)).collect::<Result<_>>()?;
        let password = match &self.password_file {
            Some(file) => Some(first_line(file)?),
            None if ask => Some(asked()?),
            None => None,
        };
        Ok(UserEdit {
            password,
            ntlm: self.ntlm.then_some(true),
            grant: self.grant,
            machines,
            add_certificates: self.certificates,
            ..UserEdit::default()
        })
    }
}

fn machine_grant(words: &str) -> Result<MachineGrant> {
    // From the right: a machine's name may have an equals sign in it, a grant has none.
    let Some((machine, grant)) = words.rsplit_once('=') else {
        return Err(Failure::new("invalid-argument", format!("`{words}` is no MACHINE=GRANT"))
            .code(Code::Usage)
            .hint("as in `--machine web=operator+export`"));
    };
    Ok(MachineGrant { machine: machine.to_owned(), grant: grant.to_owned() })
}

fn first_line(file: &Path) -> Result<String> {
    let at = |e: io::Error| Failure::at("read", file, &e);
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(MAX_FILE).read_line(&mut text).map_err(at)?;
    } else {
        let file = std::fs::File::open(file).map_err(at)?;
        io::BufReader::new(file.take(MAX_FILE)).read_line(&mut text).map_err(at)?;
    }
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Typed twice on a terminal, unseen; the first line of anything else.
fn asked() -> Result<String> {
    if !io::stdin().is_terminal() {
        return first_line(Path::new("-"));
    }
    let once = typed("password: ")?;
    let again = typed("once more: ")?;
    if once != again {
        return Err(Failure::new("invalid-argument", "the two passwords differ")
            .hint("nothing was changed; try again"));
    }
    Ok(once)
}

fn typed(question: &str) -> Result<String> {
    let printer = Printer::default();
    let _unseen = Unseen::begin();
    printer.ask(question);
    let line = first_line(Path::new("-"));
    printer.talk("");
    line
}

/// What is typed is not shown for as long as this lives.
struct Unseen(Option<Termios>);

impl Unseen {
    fn begin() -> Self {
        let Ok(before) = tcgetattr(io::stdin().as_fd()) else { return Self(None) };
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        match tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &unseen) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, before);
        }
    }
}

fn list(printer: Printer, users: &[User]) -> Result {
    if printer.json {
        return printer.json(&users);
    }
    let rows: Vec<Vec<String>> = users
        .iter()
        .map(|user| {
            let machines = match user.machines.len() {
                0 => String::new(),
                count => count.to_string(),
            };
            vec![user.name.clone(), user.grant.clone(), machines, proof(user)]
        })
        .collect();
    printer.table(&["NAME", "GRANT", "MACHINES", "PROVES IT BY"], &rows)
}

fn show(printer: Printer, user: &User) -> Result {
    if printer.json {
        return printer.json(user);
    }
    printer.line(format!("{}  {}  ({})", user.name, user.grant, proof(user)))?;
    for (machine, grant) in &user.machines {
        printer.line(format!("  {machine}  {grant}"))?;
    }
    for certificate in &user.certificates {
        printer.line(format!("  certificate {certificate}"))?;
    }
    Ok(())
}

fn proof(user: &User) -> String {
    if user.disabled {
        return "kept out".to_owned();
    }
    let ways =
        [(user.password, "password"), (user.ntlm, "NTLM"), (!user.certificates.is_empty(), "certificate")];
    let ways: Vec<&str> = ways.into_iter().filter_map(|(has, way)| has.then_some(way)).collect();
    if ways.is_empty() { "nothing".to_owned() } else { ways.join(" or ") }
}
