//! Attributes: what `septwatch watch --json` prints of an event, under the names of OpenTelemetry's conventions where there
//! is one, else under `septwatch.`. <https://opentelemetry.io/docs/specs/semconv/>

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use serde_json::Value;

/// An attribute.
pub fn attribute(key: impl Into<String>, value: impl Into<any_value::Value>) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value.into()) }), key_strindex: 0 }
}

/// Text as an attribute's value or a record's body.
pub fn text(text: impl Into<String>) -> any_value::Value {
    any_value::Value::StringValue(text.into())
}

/// A number as an attribute's value. Those that do not fit, such as addresses of the kernel, become text.
pub fn number(number: u64) -> any_value::Value {
    i64::try_from(number).map_or_else(|_| text(format!("{number:#x}")), any_value::Value::IntValue)
}

/// What is told in another place, or is an address that nobody outside of this host can use: stacks by name are there.
const LEFT_OUT: [&str; 5] = ["type", "wall_ns", "kernel_stack", "user_stack", "user_functions"];

/// The attributes of an event's object. What it has nothing to say of is left out.
pub fn of(object: &Value) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            left_out if LEFT_OUT.contains(&left_out) => {}
            "pid" => add(&mut attributes, "process.pid".to_owned(), value),
            "tid" => add(&mut attributes, "thread.id".to_owned(), value),
            "comm" => add(&mut attributes, "thread.name".to_owned(), value),
            "kernel_functions" => attributes.extend(stack("code.stacktrace", value)),
            key => add(&mut attributes, format!("septwatch.{key}"), value),
        }
    }
    attributes.extend(stack("septwatch.user_stacktrace", &object["user_functions"]));
    attributes
}

/// A stack as one text, a line for each place; none where there is none.
fn stack(key: &str, places: &Value) -> Option<KeyValue> {
    let places: Vec<_> = places.as_array()?.iter().filter_map(Value::as_str).collect();
    (!places.is_empty()).then(|| attribute(key, text(places.join("\n"))))
}

fn add(attributes: &mut Vec<KeyValue>, key: String, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                add(attributes, format!("{key}.{field}"), value);
            }
        }
        value => attributes.extend(any(value).map(|value| attribute(key, value))),
    }
}

fn any(value: &Value) -> Option<any_value::Value> {
    Some(match value {
        Value::Null | Value::Object(_) => return None,
        Value::Bool(is_so) => any_value::Value::BoolValue(*is_so),
        Value::Number(value) => match value.as_u64() {
            Some(value) => number(value),
            None => any_value::Value::DoubleValue(value.as_f64()?),
        },
        Value::String(value) => text(value),
        Value::Array(values) if values.is_empty() => return None,
        Value::Array(values) => {
            let values = values.iter().filter_map(any).map(|value| AnyValue { value: Some(value) });
            any_value::Value::ArrayValue(ArrayValue { values: values.collect() })
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_is_an_attribute_under_its_conventional_name() {
        let object = json!({
            "type": "violation", "td": 3, "gfn": null, "pid": 7, "tid": 8, "comm": "qemu", "reasons": [],
            "cgroup": u64::MAX, "kernel_stack": ["0x1"], "kernel_functions": ["a+0x1", "b+0x2"],
            "guest_memfd": {"inode": 5, "operation": null}, "sept": true,
        });
        let expected = [
            attribute("septwatch.td", number(3)),
            attribute("process.pid", number(7)),
            attribute("thread.id", number(8)),
            attribute("thread.name", text("qemu")),
            attribute("septwatch.cgroup", text("0xffffffffffffffff")),
            attribute("code.stacktrace", text("a+0x1\nb+0x2")),
            attribute("septwatch.guest_memfd.inode", number(5)),
            attribute("septwatch.sept", any_value::Value::BoolValue(true)),
        ];
        assert_eq!(of(&object), expected);
    }
}
