//! The page of `--help` of every command, as one text: a change of what may be typed is seen in it.

use std::fmt::Write;

use clap::CommandFactory;

use super::args::Cli;

/// In columns.
const WIDTH: usize = 100;

fn pages(command: &clap::Command, path: &str, text: &mut String) {
    let help = command.clone().bin_name(path).term_width(WIDTH).render_long_help();
    writeln!(text, "───── {path} --help\n{help}").expect("a String takes all that is written");
    for sub in command.get_subcommands() {
        pages(sub, &format!("{path} {}", sub.get_name()), text);
    }
}

#[test]
fn the_help_of_every_command_is_as_it_was() {
    let mut command = Cli::command().max_term_width(WIDTH);
    command.build();
    let mut text = String::new();
    pages(&command, "hermes", &mut text);
    insta::assert_snapshot!("reference", text);
}
