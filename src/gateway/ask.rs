//! Permission requests: what agents ask in a chat, and what people answer.
//!
//! **Invariants**
//! - A request has a number that no other request of this gateway ever has, also after a kill: the number is recorded
//!   together with the word of it.
//! - `/approve REQUEST.OPTION` and `/deny REQUEST.OPTION` answer that request or none, so that a button that is pressed
//!   late answers nothing else. Without a number the oldest open request of the chat is meant.

use super::conversation::Ask;
use super::{ASK_MAX, Effect, Gateway, OpenAsk, notice};
use crate::agent::{AgentCommand, PermissionOption, RecoveredPermission};
use crate::chat::{Choice, Conversation, Inbound, Notice};
use crate::clock::UnixMillis;
use crate::store::Change;
use crate::words::{Answer, Expired, Words};

/// The key in the store of the number that was given last.
pub const ASKS_KEY: &str = "asks";

/// The longest label of a button, in characters; the text of the notice has all of it.
const LABEL_CHARS_MAX: usize = 40;

/// What an answer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Nothing: for this once.
    Once,
    /// This option of the oldest open request, counted from 1.
    Option(usize),
    /// This option of this request; 0 for none of its options.
    Exactly(u64, usize),
}

impl Which {
    fn parse(argument: Option<&str>) -> Option<Self> {
        let Some(argument) = argument else { return Some(Self::Once) };
        match argument.split_once('.') {
            Some((request, option)) => Some(Self::Exactly(request.parse().ok()?, option.parse().ok()?)),
            None => Some(Self::Option(argument.parse().ok()?)),
        }
    }
}

impl Gateway {
    /// Goes on counting requests from here, if they were counted further than this gateway knows.
    pub fn count_asks_from(&mut self, last: u64) {
        self.last_ask = self.last_ask.max(last);
    }

    /// What nobody has answered yet.
    pub fn open_asks(&self) -> impl Iterator<Item = OpenAsk<'_>> {
        self.talks.values().flat_map(|talk| {
            talk.asks.iter().map(|ask| OpenAsk {
                agent: &talk.agent,
                number: ask.number,
                conversation: &talk.conversation,
                title: &ask.title,
                asked_at: ask.asked_at,
            })
        })
    }

    /// An agent asks something in a chat; `again` if the chat may have been told before.
    pub(super) fn ask(
        &mut self,
        conversation: &Conversation,
        asked: RecoveredPermission,
        again: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.last_ask += 1;
        let RecoveredPermission { request, title, options } = asked;
        let ask = Ask::new(self.last_ask, request, title, options);
        effects.push(Effect::Record(Change::Meta(ASKS_KEY, self.last_ask.to_string())));
        effects.push(notice(conversation, ask.shown(self.words(conversation), again)));
        self.talk(conversation).asks.push_back(ask);
    }

    /// Denies what the agents have asked and nobody has answered for too long, with a word to the chats.
    pub fn expire(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        for talk in self.talks.values_mut() {
            while let Some(ask) = talk.asks.pop_front_if(|ask| now.since(ask.asked_at) >= ASK_MAX) {
                let option = ask.first_of(&["reject_once", "reject_always"]).map(|option| option.id.clone());
                let answer = AgentCommand::Permission { request: ask.request, option };
                let words = self.languages.on(&talk.conversation.platform);
                let told = words.permission_expired(&ask.title, Expired::Unanswered(ASK_MAX));
                effects.push(Effect::Agent(talk.agent.clone(), answer));
                effects.push(notice(&talk.conversation, told));
            }
        }
    }

    /// `/approve` and `/deny`.
    pub(super) fn answer_ask(&mut self, which: Option<&str>, approve: bool, inbound: &Inbound, out: &mut Vec<Effect>) {
        let (conversation, words) = (&inbound.conversation, self.words(&inbound.conversation));
        let talk = self.talk(conversation);
        let which = Which::parse(which);
        let at = match which {
            Some(Which::Exactly(number, _)) => talk.asks.iter().position(|ask| ask.number == number),
            _ => (!talk.asks.is_empty()).then_some(0),
        };
        let Some((at, ask)) = at.and_then(|at| Some((at, talk.asks.get(at)?))) else {
            let told = match which {
                Some(Which::Exactly(..)) => words.permission_gone(),
                _ => words.nothing_to_answer(),
            };
            return out.push(notice(conversation, told));
        };
        let Some(option) = which.and_then(|which| ask.chosen(which, approve)) else {
            let Notice { text, choices } = ask.shown(words, false);
            let text = format!("{}\n{text}", words.no_such_option());
            return out.push(notice(conversation, Notice { text, choices }));
        };
        let answer = AgentCommand::Permission { request: ask.request, option: option.map(|option| option.id.clone()) };
        let said = words.answered(&ask.title, option.map(|option| option.name.as_str()));
        talk.asks.remove(at);
        out.push(Effect::Agent(talk.agent.clone(), answer));
        out.push(notice(conversation, said));
    }
}

impl Ask {
    /// The option that is meant: `Some(None)` for a denial where the agent has no option for it. None if there is no
    /// such option, or it is not of this kind.
    fn chosen(&self, which: Which, approve: bool) -> Option<Option<&PermissionOption>> {
        match which {
            Which::Once if approve => self.first_of(&["allow_once", "allow_always"]).map(Some),
            Which::Once => Some(self.first_of(&["reject_once", "reject_always"])),
            Which::Exactly(_, 0) if !approve => self.chosen(Which::Once, false),
            Which::Option(number) | Which::Exactly(_, number) => {
                let option = self.options.get(number.checked_sub(1)?)?;
                (option.allows() == approve).then_some(Some(option))
            }
        }
    }

    /// The first option of the earliest kind that there is; the order of options says nothing.
    fn first_of(&self, kinds: &[&str]) -> Option<&PermissionOption> {
        kinds.iter().find_map(|kind| self.options.iter().find(|option| option.kind == *kind))
    }

    /// What the chat is told.
    fn shown(&self, words: &dyn Words, again: bool) -> Notice {
        let command = |approve, number: usize| {
            let verb = if approve { "/approve" } else { "/deny" };
            format!("{verb} {}.{number}", self.number)
        };
        let numbered = (1..).zip(&self.options);
        let answers: Vec<Answer<'_>> = numbered
            .map(|(number, option)| Answer { command: command(option.allows(), number), name: &option.name })
            .collect();
        let choice = |answer: &Answer<'_>| Choice { label: label(answer.name), command: answer.command.clone() };
        let mut choices: Vec<Choice> = answers.iter().map(choice).collect();
        if self.options.iter().all(PermissionOption::allows) {
            choices.push(Choice { label: words.deny().to_owned(), command: command(false, 0) });
        }
        Notice { text: words.permission(again, &self.title, &answers), choices }
    }
}

/// One line of the agent's word for an option.
fn label(name: &str) -> String {
    let line = name.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LABEL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(options: &[(&str, &str)]) -> Ask {
        let option = |(id, kind): &(&str, &str)| PermissionOption {
            id: (*id).to_owned(),
            name: format!("name of {id}"),
            kind: (*kind).to_owned(),
        };
        Ask::new(u64::MAX, 5, "rm".to_owned(), options.iter().map(option).collect())
    }

    #[test]
    fn each_option_has_a_button_and_there_is_always_one_that_denies() {
        let words = crate::words::Language::En.words();
        let labels = |ask: &Ask| {
            let choices = ask.shown(words, false).choices;
            assert!(choices.iter().all(|choice| choice.command.len() <= Choice::COMMAND_BYTES_MAX));
            choices.into_iter().map(|choice| format!("{} {}", choice.command, choice.label)).collect::<Vec<_>>()
        };
        let max = u64::MAX;
        assert_eq!(
            labels(&ask(&[("a", "allow_once"), ("r", "reject_once")])),
            [format!("/approve {max}.1 name of a"), format!("/deny {max}.2 name of r")]
        );
        assert_eq!(labels(&ask(&[("a", "allow_once")]))[1], format!("/deny {max}.0 Deny"));
        assert_eq!(ask(&[("a", "allow_once")]).chosen(Which::Exactly(max, 0), false), Some(None));
        assert_eq!(ask(&[("a", "allow_once")]).chosen(Which::Exactly(max, 0), true), None);
    }

    #[test]
    fn a_label_is_one_short_line() {
        assert_eq!(label(" Yes,\n always "), "Yes, always");
        assert_eq!(label(&"允许".repeat(40)).chars().count(), LABEL_CHARS_MAX + 1);
    }

    proptest! {
        #[test]
        fn no_argument_panics_and_what_is_on_a_button_is_understood(text in ".{0,20}", number: u64, option in 0usize..99) {
            let _any = Which::parse(Some(&text));
            prop_assert_eq!(Which::parse(Some(&format!("{number}.{option}"))), Some(Which::Exactly(number, option)));
            prop_assert_eq!(Which::parse(Some(&option.to_string())), Some(Which::Option(option)));
        }
    }
}
