//! The one script of the simulation: it carries out the commands that are its arguments.

/// Returns all replies. An error of a command is its reply.
pub(crate) const TEXT: &str = "
    local replies, at = {}, 1
    while at <= #ARGV do
        local words = {}
        for i = 1, tonumber(ARGV[at]) do words[i] = ARGV[at + i] end
        replies[#replies + 1] = redis.pcall(unpack(words))
        at = at + #words + 1
    end
    return replies";

/// The words behind the script: how many keys, the keys, and for each command how many words, and those.
pub(crate) fn words(keys: &[String], commands: &[Vec<String>]) -> Vec<String> {
    let mut words = vec![keys.len().to_string()];
    words.extend(keys.iter().cloned());
    for command in commands {
        words.push(command.len().to_string());
        words.extend(command.iter().cloned());
    }
    words
}

/// The commands among the words of EVAL, the script first.
pub(crate) fn commands(words: &[&str]) -> Vec<Vec<String>> {
    let count = |word: &str| word.parse::<usize>().expect("the plan has written a number");
    let mut rest = &words[2 + count(words[1])..];
    let mut commands = Vec::new();
    while let Some((len, words)) = rest.split_first() {
        let (command, after) = words.split_at(count(len));
        commands.push(command.iter().map(|word| (*word).to_owned()).collect());
        rest = after;
    }
    commands
}
