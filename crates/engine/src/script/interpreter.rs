//! One interpreter with all that scripts find in it, and the functions it has compiled.
//!
//! # How it works
//! `redis.call` needs the command under way, which lives as long as the run; it is put into the `redis` table when a run begins (see
//! `run.rs`). All else stays from run to run. An interpreter that ran out of memory, or whose script was ended,
//! is not used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use mlua::{Function, HookTriggers, Lua, LuaString, MultiValue, Table, Value, VmState};

use super::cache::{Script, Sha};
use super::raise::{Thrown, caught};
use super::random;
use super::redis::{self, ScriptLog, Version};
use super::sandbox::{self, Environment};
use super::watch::{Overseer, Watch};
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
    /// The table behind the global `redis`.
    pub(crate) redis: Table,
    /// The version that `redis.setresp` has chosen.
    pub(crate) version: Arc<Version>,
    /// The next command is one of `redis.pcall`.
    pub(crate) catches: Arc<AtomicBool>,
    pub(crate) watch: Arc<Watch>,
    /// Compiled functions. They lie in a table of the interpreter: Rust may hold 8,000 values of one at a time, and the arguments
    /// of a command are to find the same room whatever was compiled before.
    functions: Table,
    /// Where in `functions` a script is.
    positions: HashMap<Sha, usize, foldhash::fast::FixedState>,
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
        let catches = Arc::new(AtomicBool::new(false));
        redis.raw_set("pcall", pcall(&lua, &redis, &catches)?)?;
        let watch = Watch::new(overseer);
        // For functions that take long without executing instructions.
        lua.set_app_data(watch.clone());
        let watched = watch.clone();
        let every = HookTriggers::new().every_nth_instruction(INSTRUCTIONS_PER_TICK);
        lua.set_global_hook(every, move |_, _| tick(&watched))?;
        let globals = lua.globals();
        let (compile, to_string) = (globals.get("loadstring")?, globals.get("tostring")?);
        let (environment, functions) = (Environment::of(&lua)?, lua.create_table()?);
        Ok(Self {
            lua,
            environment,
            redis,
            version,
            catches,
            watch,
            functions,
            positions: HashMap::default(),
            compile,
            to_string,
            generation,
        })
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The function of a script.
    ///
    /// # Errors
    /// The reply to a script that cannot be compiled.
    pub(crate) fn function(&mut self, script: &Script) -> Result<Function, CommandError> {
        if let Some(position) = self.positions.get(&script.sha) {
            return self.functions.raw_get(*position).map_err(broken);
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
        self.keep(script.sha, &function).map_err(broken)?;
        Ok(function)
    }

    fn keep(&mut self, sha: Sha, function: &Function) -> mlua::Result<()> {
        if self.positions.len() >= FUNCTIONS_MAX {
            self.functions = self.lua.create_table()?;
            self.positions.clear();
        }
        let position = self.positions.len() + 1;
        self.functions.raw_set(position, function)?;
        self.positions.insert(sha, position);
        Ok(())
    }

    /// What Lua's `tostring` makes of a value.
    pub(crate) fn text(&self, value: &Value) -> Vec<u8> {
        let text: mlua::Result<Value> = self.to_string.call(value.clone());
        match text.and_then(|text| caught(&self.lua, text)) {
            Ok(Value::String(text)) => text.as_bytes().to_vec(),
            _ => value.type_name().as_bytes().to_vec(),
        }
    }

    /// Whether the next script finds it as new.
    pub(crate) fn is_reusable(&self) -> bool {
        !self.watch.was_interrupted() && self.lua.used_memory() <= IDLE_BYTES_MAX
    }
}

/// `redis.pcall`: the `redis.call` of the run, told to return its error. Making a second function for each run would take as long as
/// a small script.
fn pcall(lua: &Lua, redis: &Table, catches: &Arc<AtomicBool>) -> mlua::Result<Function> {
    let (redis, catches) = (redis.clone(), catches.clone());
    lua.create_function(move |_, values: MultiValue| {
        let call: Function = redis.raw_get("call")?;
        catches.store(true, Ordering::Relaxed);
        call.call::<Value>(values)
    })
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
