//! `dozen login` and `logout`: who one is for a registry, asked of it, and kept where docker keeps it.

use std::io::{BufRead, IsTerminal, Read, Write};

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::Context;
use crate::arguments::flags::{is_on, switch, text, value, verb};
use crate::context::store::Store;
use crate::credentials::{self, Account};
use crate::failure::{Failure, Outcome};
use crate::{output, terminal};

pub fn command() -> Command {
    verb(
        "login",
        "Authenticate to a registry",
        "login [OPTIONS] [SERVER]",
        "dozen login registry.example:5000\ncat password | dozen login -u me --password-stdin registry.example:5000",
    )
    .arg(value("password", 'p', "string", "Password or Personal Access Token (PAT)"))
    .arg(switch("password-stdin", None, "Take the Password or Personal Access Token (PAT) from stdin"))
    .arg(value("username", 'u', "string", "Username"))
    .arg(Arg::new("server").value_name("SERVER"))
}

pub fn logout_command() -> Command {
    verb("logout", "Log out from a registry", "logout [SERVER]", "dozen logout registry.example:5000")
        .arg(Arg::new("server").value_name("SERVER"))
}

fn store() -> Store {
    Store::of(&|name| std::env::var(name).ok())
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let key = credentials::key_of(text(matches, "server").unwrap_or_default());
    let store = store();
    let user = text(matches, "username");
    let account = match given(matches)? {
        Some(account) => account,
        None => {
            if let (None, Some(known)) = (user, credentials::account(store.directory(), key)?) {
                output::say("Authenticating with existing credentials...");
                match ask(context, key, &known).await {
                    Ok(()) => return succeeded(),
                    Err(error) => output::say(&format!("Login did not succeed, error: {}", error.message)),
                }
            }
            prompted(user)?
        }
    };
    ask(context, key, &account).await?;
    if let Some(path) = credentials::keep(&store, key, &account)? {
        output::say(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    succeeded()
}

fn succeeded() -> Outcome {
    output::print_line("Login Succeeded")?;
    Ok(0)
}

async fn ask(context: &Context, key: &str, account: &Account) -> Result<(), Failure> {
    let request = json!({
        "username": account.user, "password": account.password, "identitytoken": account.identity_token,
        "serveraddress": key,
    });
    Ok(context.client.post_for_nothing("/auth", Some(&request)).await?)
}

/// What the command line says, in Docker's words where it is wrong. `None`: not enough.
fn given(matches: &ArgMatches) -> Result<Option<Account>, Failure> {
    let (user, password) = (text(matches, "username"), text(matches, "password"));
    let from_stdin = is_on(matches, "password-stdin");
    if password.is_some() {
        output::say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if from_stdin {
            return Err(Failure::new("--password and --password-stdin are mutually exclusive"));
        }
    }
    let password = match (password, from_stdin, user) {
        (_, true, None | Some("")) => return Err(Failure::new("Must provide --username with --password-stdin")),
        (_, true, _) => {
            let mut all = String::new();
            std::io::stdin().read_to_string(&mut all)?;
            all.trim_end_matches(['\n', '\r']).to_owned()
        }
        (Some(_), _, None) => return Err(Failure::new("Must provide --username with --password")),
        (Some(password), ..) => password.to_owned(),
        (None, ..) => return Ok(None),
    };
    Ok(user.map(|user| Account { user: user.to_owned(), password, identity_token: String::new() }))
}

fn prompted(user: Option<&str>) -> Result<Account, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("Cannot perform an interactive login from a non TTY device")
            .with_hint("give the password by a pipe: --username NAME --password-stdin"));
    }
    let user = match user.filter(|user| !user.is_empty()) {
        Some(user) => user.to_owned(),
        None => {
            let _ = write!(std::io::stderr(), "Username: ");
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line.trim().to_owned()
        }
    };
    if user.is_empty() {
        return Err(Failure::new("username is empty"));
    }
    let password = terminal::read_hidden_line("Password: ")?;
    let _ = writeln!(std::io::stderr());
    match password {
        Some(password) if !password.is_empty() => Ok(Account { user, password, identity_token: String::new() }),
        Some(_) => Err(Failure::new("password is empty")),
        None => Err(Failure::new("the login was given up")),
    }
}

pub fn log_out(matches: &ArgMatches) -> Outcome {
    let server = text(matches, "server").unwrap_or_default();
    let key = credentials::key_of(server);
    if !credentials::forget(&store(), key)? {
        output::print_line(&format!("Not logged in to {key}"))?;
        return Ok(0);
    }
    output::print_line(&format!("Removing login credentials for {key}"))?;
    Ok(0)
}
