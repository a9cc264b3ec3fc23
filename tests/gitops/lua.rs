//! Lua as Argo CD runs it: version 5.1, with the base functions and the library `table` (`runLua` in its
//! `util/lua/lua.go`, for scripts that are no part of Argo CD).

use std::fs;
use std::path::Path;

use mlua::serde::ser::Options as SerializeOptions;
use mlua::{Lua, LuaOptions, LuaSerdeExt as _, StdLib};
use serde_json::Value;

/// One of our scripts.
pub fn script(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("integrations/argocd").join(name)).unwrap()
}

/// What a script returns for an object.
pub fn run(script: &str, object: &Value) -> Value {
    let lua = Lua::new_with(StdLib::TABLE, LuaOptions::default()).unwrap();
    let options = SerializeOptions::new()
        .set_array_metatable(false)
        .serialize_none_to_null(false)
        .serialize_unit_to_null(false);
    let object = lua.to_value_with(object, options).unwrap();
    lua.globals().set("obj", object).unwrap();
    let answer: mlua::Value = lua.load(script).eval().unwrap();
    lua.from_value(answer).unwrap()
}
