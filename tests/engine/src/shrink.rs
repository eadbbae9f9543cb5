//! Makes a sequence that shows a difference as short as it gets.

use crate::command::Command;

/// Runs of a sequence that shrinking may take: enough for a few hundred commands, and over within a minute.
const RUNS_MAX: usize = 600;

/// Commands with fewer arguments stay whole: with some left out they may become ones whose answer is open.
const ARGUMENTS_MANY: usize = 12;

/// A shorter sequence for which `fails` still holds, by leaving out commands, then arguments. Glued commands stay together.
pub fn shrink(commands: Vec<Command>, mut fails: impl FnMut(&[Command]) -> bool) -> Vec<Command> {
    let mut runs_left = RUNS_MAX;
    let mut groups = groups(commands);
    remove_chunks(&mut groups, &mut runs_left, &mut |groups| fails(&groups.concat()));
    let mut commands = groups.concat();
    for index in 0..commands.len() {
        if commands[index].arguments.len() < ARGUMENTS_MANY {
            continue;
        }
        let mut arguments = commands[index].arguments.clone();
        let name = arguments.remove(0);
        remove_chunks(&mut arguments, &mut runs_left, &mut |arguments| {
            let mut shorter = commands.clone();
            shorter[index].arguments = [std::slice::from_ref(&name), arguments].concat();
            fails(&shorter)
        });
        arguments.insert(0, name);
        commands[index].arguments = arguments;
    }
    commands
}

fn groups(commands: Vec<Command>) -> Vec<Vec<Command>> {
    let mut groups: Vec<Vec<Command>> = Vec::new();
    for command in commands {
        match groups.last_mut() {
            Some(group) if command.is_glued => group.push(command),
            _ => groups.push(vec![command]),
        }
    }
    groups
}

/// Leaves out ever smaller pieces, as delta debugging does.
fn remove_chunks<T: Clone>(items: &mut Vec<T>, runs_left: &mut usize, fails: &mut impl FnMut(&[T]) -> bool) {
    let mut size = items.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < items.len() {
            if *runs_left == 0 {
                return;
            }
            *runs_left -= 1;
            let mut shorter = items.clone();
            shorter.drain(start..items.len().min(start + size));
            if fails(&shorter) {
                *items = shorter;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::shrink;
    use crate::command::Command;

    #[test]
    fn only_what_the_difference_needs_is_left() {
        let commands: Vec<_> =
            (0..100).map(|number| Command::words(&format!("DEL {number} a b c d e f g h i j k l"))).collect();
        let has =
            |commands: &[Command], key: &str| commands.iter().any(|command| command.arguments.contains(&key.into()));
        let shrunk = shrink(commands, |commands| has(commands, "17") && has(commands, "60"));
        assert_eq!(shrunk, [Command::words("DEL 17"), Command::words("DEL 60")]);
    }

    #[test]
    fn glued_commands_stay_together() {
        let mut commands: Vec<_> = ["SPOP e 2", "DEL e", "GET a"].map(Command::words).into();
        commands[1].is_glued = true;
        let shrunk = shrink(commands, |commands| commands.iter().any(|command| command.name() == "SPOP"));
        assert_eq!(shrunk.iter().map(Command::name).collect::<Vec<_>>(), ["SPOP", "DEL"]);
    }
}
