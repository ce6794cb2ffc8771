//! Docker's own definition of its requests against our tables: a field that a later version of the API adds, and that no
//! table names, fails here before a client sends it into nothing.
//!
//! The definition is that of bollard's models, which are generated from Docker's OpenAPI document.

use std::collections::BTreeSet;

use bollard::models;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::super::endpoints::{CONNECT, DISCONNECT};
use super::super::network_request::NETWORK;
use super::super::resources::UPDATE;
use super::{COMMIT, CREATE, EXEC, EXEC_START, Field, Fields, VOLUME};

/// The paths of a model's fields: `HostConfig.Mounts.Type`. What is in lists and maps has no name of its own.
fn paths<T: DeserializeOwned>() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let tracer = Tracer { path: String::new(), found: &mut found };
    if let Err(error) = T::deserialize(tracer) {
        panic!("{error}");
    }
    found
}

macro_rules! numbers {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.visit_i64(1)
        })*
    };
}

/// Makes up a value of whatever type is asked for, and notes the names of all fields on the way.
struct Tracer<'a> {
    path: String,
    found: &'a mut BTreeSet<String>,
}

/// A made-up value is not always one that a type takes.
type Failure = de::value::Error;

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_bool(true)
    }

    numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 }
    numbers! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_f64(1.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        // The one value that is also a time.
        visitor.visit_str("2026-01-02T03:04:05Z")
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(Once { tracer: self, left: 1 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_map(Once { tracer: self, left: 1 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_map(Each { tracer: self, fields: fields.iter(), at: "" })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_enum(de::value::StrDeserializer::new(variants[0]))
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }
}

/// A list or a map with one element.
struct Once<'a> {
    tracer: Tracer<'a>,
    left: usize,
}

impl Once<'_> {
    fn element(&mut self) -> Tracer<'_> {
        Tracer { path: self.tracer.path.clone(), found: self.tracer.found }
    }

    fn take(&mut self) -> bool {
        self.left.checked_sub(1).map(|left| self.left = left).is_some()
    }
}

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        self.take().then(|| seed.deserialize(self.element())).transpose()
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        self.take().then(|| seed.deserialize(self.element())).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        seed.deserialize(self.element())
    }
}

/// An object with all its fields.
struct Each<'a> {
    tracer: Tracer<'a>,
    fields: std::slice::Iter<'static, &'static str>,
    at: &'static str,
}

impl<'de> MapAccess<'de> for Each<'_> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        let Some(name) = self.fields.next() else { return Ok(None) };
        self.at = name;
        seed.deserialize(de::value::StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        let parent = &self.tracer.path;
        let path = if parent.is_empty() { self.at.to_owned() } else { format!("{parent}.{}", self.at) };
        self.tracer.found.insert(path.clone());
        seed.deserialize(Tracer { path, found: self.tracer.found })
    }
}

/// The paths that a table knows.
fn known(fields: Fields, parent: &str, found: &mut BTreeSet<String>) {
    for (name, field) in fields {
        let path = if parent.is_empty() { (*name).to_owned() } else { format!("{parent}.{name}") };
        if let Field::Within(fields) | Field::Each(fields) | Field::Values(fields) = field {
            known(fields, &path, found);
        }
        found.insert(path);
    }
}

/// What is within a field that the table decides about as a whole is decided.
fn is_within(path: &str, table: Fields) -> bool {
    let Some((name, rest)) = path.split_once('.') else { return false };
    match table.iter().find(|(known, _)| *known == name) {
        Some((_, Field::Within(fields) | Field::Each(fields) | Field::Values(fields))) => is_within(rest, fields),
        Some(_) => true,
        None => false,
    }
}

#[track_caller]
fn every_field_is_known<T: DeserializeOwned>(table: Fields) {
    let mut here = BTreeSet::new();
    known(table, "", &mut here);
    let asked = paths::<T>();
    assert!(asked.len() > 1, "{asked:?}");
    let missing: Vec<_> = asked.iter().filter(|path| !here.contains(*path) && !is_within(path, table)).collect();
    assert!(missing.is_empty(), "no table says what becomes of {missing:?}");
}

#[test]
fn no_request_has_a_field_that_no_table_knows() {
    every_field_is_known::<models::ContainerCreateBody>(CREATE);
    every_field_is_known::<models::ExecConfig>(EXEC);
    every_field_is_known::<models::ExecStartConfig>(EXEC_START);
    every_field_is_known::<models::VolumeCreateRequest>(VOLUME);
    every_field_is_known::<models::ContainerConfig>(COMMIT);
    every_field_is_known::<models::NetworkCreateRequest>(NETWORK);
    every_field_is_known::<models::NetworkConnectRequest>(CONNECT);
    every_field_is_known::<models::NetworkDisconnectRequest>(DISCONNECT);
    every_field_is_known::<models::ContainerUpdateBody>(UPDATE);
}

#[test]
fn models_are_seen_in_depth() {
    let create = paths::<models::ContainerCreateBody>();
    for path in ["Image", "HostConfig.Memory", "HostConfig.Mounts.BindOptions.Propagation", "Healthcheck.Test"] {
        assert!(create.contains(path), "{path} is not in {create:?}");
    }
    assert!(create.contains("NetworkingConfig.EndpointsConfig.IPAMConfig.IPv4Address"));
}
