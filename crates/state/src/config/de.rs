//! Makes types out of a tree of settings, and puts file, line and key on every error.
//!
//! What comes from the environment or from a file is text. It becomes a number, a truth value or a list (separated by
//! commas) where the type asks for one; a text in TOML does not.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapDeserializer, StrDeserializer, StringDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::config::error::{ConfigError, Origin};
use crate::config::node::{Node, Origins, Table, Value, join, join_index};
use crate::config::secret::is_secret_key;

/// The most bytes that are read as a secret: a longer file is not one.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A value together with where it and all below it was made, if it came through a [`Document`](super::Document).
pub(crate) struct Sourced<T> {
    pub(crate) value: T,
    pub(crate) path: Option<String>,
    pub(crate) origins: Origins,
}

/// The name by which [`Sourced`] asks our deserializer for more than the value; any other one passes the value alone.
const SOURCED: &str = "$acteon_state::Sourced";

/// Reads a `T` from `node`, which is at `path`.
pub(crate) fn read<'de, T: Deserialize<'de>>(node: &Node, path: &str) -> Result<T, ConfigError> {
    let reader = Reader { node, path: path.to_owned() };
    T::deserialize(reader).map_err(|error| place(error, node, path))
}

/// Says that an error is about this node, and hides what must not be shown.
fn place(error: ConfigError, node: &Node, path: &str) -> ConfigError {
    if error.is_placed() {
        return error;
    }
    let key = path.rsplit('.').next().unwrap_or(path);
    let error = match node.scalar_text() {
        Some(text) if is_secret_key(key.split('[').next().unwrap_or(key)) => error.without(&text),
        _ => error,
    };
    error.at(path, node.origin.as_ref())
}

struct Reader<'a> {
    node: &'a Node,
    path: String,
}

impl Reader<'_> {
    /// The text, where texts stand for other types too.
    fn loose_text(&self) -> Result<Option<String>, ConfigError> {
        match &self.node.value {
            Value::String(text) if self.node.origin.as_ref().is_some_and(Origin::is_text_only) => {
                Ok(Some(text.clone()))
            }
            Value::InFile(_) => self.file_text().map(Some),
            _ => Ok(None),
        }
    }

    fn file_text(&self) -> Result<String, ConfigError> {
        let Value::InFile(path) = &self.node.value else {
            return Err(ConfigError::new("there is no file to read this from"));
        };
        let shown = path.display();
        let unreadable =
            |error: std::io::Error| ConfigError::new(format!("cannot read the secret from {shown}: {error}"));
        if std::fs::metadata(path).map_err(unreadable)?.len() > SECRET_BYTES_MAX {
            return Err(ConfigError::new(format!("{shown} has more than {SECRET_BYTES_MAX} bytes: not a secret")));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        match text.trim() {
            "" => Err(ConfigError::new(format!("{shown} is empty"))),
            secret => Ok(secret.to_owned()),
        }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.loose_text()? {
            None => self.deserialize_any(visitor),
            Some(text) => {
                let text = text.trim();
                if let Ok(number) = text.parse::<i64>() {
                    visitor.visit_i64(number)
                } else if let Ok(number) = text.parse::<f64>() {
                    visitor.visit_f64(number)
                } else {
                    Err(ConfigError::invalid_value(Unexpected::Str(text), &visitor))
                }
            }
        }
    }
}

/// Numbers of all sizes go the same way: visitors check the range.
macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            self.number(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.node.value {
            Value::Table(table) => visitor.visit_map(Entries::new(table, self.path)),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), path: self.path }),
            Value::String(text) => visitor.visit_str(text),
            Value::InFile(_) => visitor.visit_string(self.file_text()?),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(truth) => visitor.visit_bool(*truth),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.loose_text()?.as_deref().map(str::trim) {
            None => self.deserialize_any(visitor),
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            Some(text) => Err(ConfigError::new(format!("expected true or false, found `{text}`"))),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let Some(text) = self.loose_text()? else {
            return self.deserialize_any(visitor);
        };
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let items: Vec<Node> = words
            .map(|word| Node { value: Value::String(word.to_owned()), origin: self.node.origin.clone() })
            .collect();
        visitor.visit_seq(Items { items: items.iter().enumerate(), path: self.path })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        if name == SOURCED {
            let mut origins = Origins::new();
            self.node.collect_origins(&self.path, &mut origins);
            return visitor.visit_seq(SourcedParts { reader: Some(self), origins: Some(origins), path_given: false });
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match &self.node.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::InFile(_) => visitor.visit_enum(self.file_text()?.into_deserializer()),
            Value::Table(table) => match table.0.as_slice() {
                [(key, node)] => visitor.visit_enum(Variant { key, node, path: join(&self.path, key) }),
                _ => Err(ConfigError::invalid_value(Unexpected::Map, &"a table with one key")),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

/// The entries of a table.
struct Entries<'a> {
    rest: std::slice::Iter<'a, (String, Node)>,
    current: Option<&'a (String, Node)>,
    path: String,
}

impl<'a> Entries<'a> {
    fn new(table: &'a Table, path: String) -> Self {
        Self { rest: table.0.iter(), current: None, path }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        self.current = self.rest.next();
        let Some((key, node)) = self.current else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, ConfigError> = key.as_str().into_deserializer();
        let placed = |error| place(error, node, &join(&self.path, key));
        seed.deserialize(name).map(Some).map_err(placed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConfigError> {
        let Some((key, node)) = self.current else {
            return Err(ConfigError::new("a value was asked for before its key"));
        };
        let path = join(&self.path, key);
        seed.deserialize(Reader { node, path: path.clone() }).map_err(|error| place(error, node, &path))
    }
}

/// The items of a list.
struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    path: String,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ConfigError> {
        let Some((at, node)) = self.items.next() else {
            return Ok(None);
        };
        let path = join_index(&self.path, at);
        seed.deserialize(Reader { node, path: path.clone() }).map(Some).map_err(|error| place(error, node, &path))
    }
}

/// A variant with content: `{ name = content }`.
struct Variant<'a> {
    key: &'a str,
    node: &'a Node,
    path: String,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = ConfigError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ConfigError> {
        let name: StrDeserializer<'_, ConfigError> = self.key.into_deserializer();
        let variant = seed.deserialize(name).map_err(|error| place(error, self.node, &self.path))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = ConfigError;

    fn unit_variant(self) -> Result<(), ConfigError> {
        Err(ConfigError::new(format!("`{}` takes no content: write it as a text", self.key)))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ConfigError> {
        let placed = |error| place(error, self.node, &self.path);
        seed.deserialize(Reader { node: self.node, path: self.path.clone() }).map_err(placed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ConfigError> {
        Reader { node: self.node, path: self.path }.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        Reader { node: self.node, path: self.path }.deserialize_any(visitor)
    }
}

/// What [`Sourced`] gets: path, origins, value, in this order.
struct SourcedParts<'a> {
    reader: Option<Reader<'a>>,
    origins: Option<Origins>,
    path_given: bool,
}

impl<'de> SeqAccess<'de> for SourcedParts<'_> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ConfigError> {
        if !self.path_given {
            self.path_given = true;
            let path = self.reader.as_ref().map(|reader| reader.path.clone()).unwrap_or_default();
            let path: StringDeserializer<ConfigError> = path.into_deserializer();
            return seed.deserialize(path).map(Some);
        }
        if let Some(origins) = self.origins.take() {
            let origins = origins.into_iter().map(|(path, origin)| (path, origin.to_text()));
            return seed.deserialize(MapDeserializer::new(origins)).map(Some);
        }
        self.reader.take().map(|reader| seed.deserialize(reader)).transpose()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sourced<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SOURCED, SourcedVisitor(PhantomData))
    }
}

struct SourcedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for SourcedVisitor<T> {
    type Value = Sourced<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Sourced<T>, D::Error> {
        Ok(Sourced { value: T::deserialize(deserializer)?, path: None, origins: Origins::new() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Sourced<T>, A::Error> {
        let missing = || A::Error::custom("a part of a sourced value is missing");
        let path: String = parts.next_element()?.ok_or_else(missing)?;
        let texts: std::collections::BTreeMap<String, String> = parts.next_element()?.ok_or_else(missing)?;
        let origins = texts.into_iter().filter_map(|(path, text)| Some((path, Origin::from_text(&text)?)));
        let origins = origins.collect();
        let value = parts.next_element()?.ok_or_else(missing)?;
        Ok(Sourced { value, path: Some(path), origins })
    }
}
