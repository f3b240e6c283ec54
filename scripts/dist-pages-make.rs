//! The man pages and completions, made of the command line. Shared with the test that finds stale ones.

use std::collections::BTreeMap;
use std::io;

use clap::Command;
use clap_complete::Shell;
use hermes_gateway::cli;

/// Where they are in `dist/`; nothing else is there.
pub const DIRECTORIES: [&str; 2] = ["man", "completions"];

/// Each file by its path in `dist/`.
///
/// # Errors
/// None that writing into memory has.
pub fn pages() -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut pages = BTreeMap::new();
    // With what clap adds when it parses: `--help`, and the whole names of subcommands.
    let mut command = cli::command();
    command.build();
    man_pages(&command, &mut pages)?;
    for (shell, name) in [(Shell::Bash, "hermes.bash"), (Shell::Zsh, "_hermes"), (Shell::Fish, "hermes.fish")] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut cli::command(), "hermes", &mut text);
        pages.insert(format!("completions/{name}"), text);
    }
    Ok(pages)
}

fn man_pages(command: &Command, pages: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).source("hermes").manual("Hermes Agent Gateway").render(&mut text)?;
    pages.insert(format!("man/{name}.1"), text);
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        man_pages(subcommand, pages)?;
    }
    Ok(())
}
