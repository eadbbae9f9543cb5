//! One interpreter with all that scripts find in it, and the functions it has compiled.
//!
//! # How it works
//! All of it stays from run to run, also `redis.call`, which finds the run under way by its thread (see `run.rs`). An interpreter that
//! ran out of memory, or whose script was ended, is not used again.

use std::mem;
use std::sync::Arc;

use acteon_resp::Protocol;
use hashbrown::HashMap;
use mlua::{Function, HookTriggers, Lua, LuaString, Value, VmState};

use super::cache::{Script, Sha};
use super::convert::Fields;
use super::raise::{Thrown, caught};
use super::random;
use super::redis::{self, ScriptLog, Version};
use super::run::calling;
use super::sandbox::{self, Environment};
use super::watch::{Overseer, Watch};
use super::words::Talk;
use crate::command::CommandError;

/// How often a script is interrupted to look at the clock: about once in a millisecond.
const INSTRUCTIONS_PER_TICK: u32 = 100_000;

/// Compiled functions that are kept, of some KiB each; then they are all forgotten, for compiling takes some microseconds only.
const FUNCTIONS_MAX: usize = 250;

/// What an idle interpreter may hold: more is the leftover of a hungry script, and is freed.
const IDLE_BYTES_MAX: usize = 8 << 20;

/// The name of the code in errors, as Redis 7.0 has it.
const CHUNK_NAME: &str = "@user_script";

/// An interpreter.
pub(crate) struct Interpreter {
    pub(crate) lua: Lua,
    pub(crate) environment: Environment,
    /// The version that `redis.setresp` has chosen.
    pub(crate) version: Arc<Version>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) talk: Talk,
    pub(crate) fields: Fields,
    /// The numbers under which the environment keeps the compiled functions.
    numbers: HashMap<Sha, usize, foldhash::fast::FixedState>,
    /// The last script may have left something for the next one.
    is_used: bool,
    compile: Function,
    to_string: Function,
    generation: u64,
}

impl Interpreter {
    pub(crate) fn new(overseer: Arc<Overseer>, log: &ScriptLog, number: u64, generation: u64) -> mlua::Result<Self> {
        let lua = sandbox::new_lua()?;
        random::skip_to(&lua, number);
        let version = Arc::new(Version::default());
        let redis = redis::table(&lua, &version, log)?;
        sandbox::set_global_protected(&lua, "redis", &redis)?;
        redis.raw_set("call", calling(&lua, true)?)?;
        redis.raw_set("pcall", calling(&lua, false)?)?;
        let watch = Watch::new(overseer);
        // For functions that take long without executing instructions.
        lua.set_app_data(watch.clone());
        let watched = watch.clone();
        let every = HookTriggers::new().every_nth_instruction(INSTRUCTIONS_PER_TICK);
        lua.set_global_hook(every, move |_, _| tick(&watched))?;
        let globals = lua.globals();
        let (compile, to_string) = (globals.get("loadstring")?, globals.get("tostring")?);
        let environment = Environment::of(&lua)?;
        let (talk, fields) = (Talk::new(&lua)?, Fields::new(&lua)?);
        let (numbers, is_used) = (HashMap::default(), false);
        Ok(Self { lua, environment, version, watch, talk, fields, numbers, is_used, compile, to_string, generation })
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes it look new for a script.
    pub(crate) fn begin(&mut self, script: &Script) -> mlua::Result<()> {
        if mem::replace(&mut self.is_used, script.may_leave_something) {
            self.environment.clean()?;
        }
        self.version.set(Protocol::Resp2);
        self.watch.begin();
        Ok(())
    }

    /// The number under which the environment keeps the function of a script.
    ///
    /// # Errors
    /// The reply to a script that cannot be compiled.
    pub(crate) fn function(&mut self, script: &Script) -> Result<usize, CommandError> {
        if let Some(number) = self.numbers.get(&script.sha) {
            return Ok(*number);
        }
        let code = self.lua.create_string(script.code()).map_err(broken)?;
        let compiled: (Value, Option<LuaString>) = self.compile.call((code, CHUNK_NAME)).map_err(broken)?;
        let function = match compiled {
            (Value::Function(function), _) => function,
            (_, text) => {
                let text = text.as_ref().map(LuaString::as_bytes);
                let text = text.as_deref().unwrap_or_default();
                return Err(CommandError::quoting("ERR Error compiling script (new function): ", text, ""));
            }
        };
        self.keep(script.sha, &function).map_err(broken)
    }

    fn keep(&mut self, sha: Sha, function: &Function) -> mlua::Result<usize> {
        if self.numbers.len() >= FUNCTIONS_MAX {
            self.numbers.clear();
            self.environment.forget_all()?;
        }
        let number = self.numbers.len() + 1;
        self.environment.keep(number, function)?;
        self.numbers.insert(sha, number);
        Ok(number)
    }

    /// What Lua's `tostring` makes of a value.
    pub(crate) fn text(&self, value: &Value) -> Vec<u8> {
        let text: mlua::Result<Value> = self.to_string.call(value.clone());
        match text.and_then(|text| caught(&self.lua, text)) {
            Ok(Value::String(text)) => text.as_bytes().to_vec(),
            _ => value.type_name().as_bytes().to_vec(),
        }
    }

    /// After a run: gives back what was needed for that only, and what Rust held for values that were collected meanwhile, such as the texts
    /// of searches: until then it counts as the interpreter's memory.
    pub(crate) fn rest(&mut self) {
        self.talk.shrink();
        self.lua.expire_registry_values();
    }

    /// Whether the next script finds it as new.
    pub(crate) fn is_reusable(&self) -> bool {
        !self.watch.was_interrupted() && self.lua.used_memory() <= IDLE_BYTES_MAX
    }
}

/// The reply when the interpreter itself fails, mostly for want of memory.
pub(crate) fn broken(error: mlua::Error) -> CommandError {
    match error {
        mlua::Error::MemoryError(_) => CommandError::text("ERR not enough memory to run the script"),
        error => CommandError::Text(format!("ERR the script's interpreter failed: {error}").into()),
    }
}

fn tick(watch: &Arc<Watch>) -> mlua::Result<VmState> {
    if watch.tick() { Err(Thrown::Over.into()) } else { Ok(VmState::Continue) }
}

impl Drop for Interpreter {
    /// One that is dropped while it runs, because of a panic, runs no longer: nobody waits for it.
    fn drop(&mut self) {
        self.watch.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::Interpreter;
    use crate::script::cache::{Script, Scripts};

    fn run(interpreter: &mut Interpreter, code: &str) {
        let script = Script::new(code.as_bytes()).expect("no flags");
        let number = interpreter.function(&script).expect("it compiles");
        interpreter.begin(&script).expect("it begins");
        let none = interpreter.lua.create_table().expect("a table");
        assert!(interpreter.environment.call(number, &none, &none).expect("it works").is_ok());
        interpreter.watch.finish();
        interpreter.rest();
    }

    /// The texts stayed until somebody searched again, and made the interpreter look like one whose script had left much behind.
    #[test]
    fn texts_of_searches_that_are_over_are_given_back_by_any_other_script() {
        let scripts = Scripts::default();
        let mut interpreter = scripts.take_interpreter().expect("an interpreter");
        let (searches, text_bytes) = (100, 10_000);
        for function in ["gmatch", "gfind"] {
            let search = format!("for i = 1, {searches} do string.{function}(i .. ('a'):rep({text_bytes}), 'a') end");
            // Nothing is collected meanwhile: a search that is begun gives back the texts of those that were.
            interpreter.lua.gc_stop();
            run(&mut interpreter, &search);
            interpreter.lua.gc_collect().expect("the searches are over");
            let before = interpreter.lua.used_memory();
            run(&mut interpreter, "return 1");
            interpreter.lua.gc_collect().expect("the texts are free");
            let freed_bytes = before.saturating_sub(interpreter.lua.used_memory());
            assert!(freed_bytes >= (searches - 1) * text_bytes, "{function}: {freed_bytes} bytes");
        }
    }
}
