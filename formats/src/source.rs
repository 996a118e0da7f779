//! From a path to the files of a checkpoint: single files, folders, sharded indexes.

use crate::container::TensorFile;
use crate::error::{shown, FormatError};
use crate::gguf;
use crate::safetensors::parse;
use crate::tensors::TensorTable;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest JSON file beside the weights that is read: the limit of a safetensors header, since an
/// index lists the same names.
const JSON_BYTES_MAX: u64 = crate::safetensors::HEADER_BYTES_MAX;

/// What kind of file a name announces.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Index,
    Safetensors,
    Pickle,
    Gguf,
    Other,
}

fn kind(path: &Path) -> Kind {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if ends(&[".safetensors.index.json"]) {
        Kind::Index
    } else if ends(&[".safetensors"]) {
        Kind::Safetensors
    } else if ends(&[".gguf"]) {
        Kind::Gguf
    } else if ends(&[".bin", ".pt", ".pth", ".ckpt", ".pkl", ".bin.index.json"]) {
        Kind::Pickle
    } else {
        Kind::Other
    }
}

/// Opens the checkpoint at `path`, a folder or one of its files; also returns the folder, where
/// the configuration lies.
pub(crate) fn open(path: &Path) -> Result<(TensorTable, PathBuf), FormatError> {
    let meta = fs::metadata(path).map_err(|cause| FormatError::io(path, "open", cause))?;
    if meta.is_dir() {
        return Ok((open_folder(path)?, path.into()));
    }
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let table = match kind(path) {
        Kind::Index => open_index(path)?,
        Kind::Safetensors => TensorTable::new(vec![TensorFile::open(path, parse)?])?,
        Kind::Pickle => return Err(pickle(path)),
        Kind::Gguf => TensorTable::new(gguf::open(path)?)?,
        Kind::Other => {
            return Err(FormatError::file(
                path,
                "is not a checkpoint file",
                "name a folder, a .safetensors, .safetensors.index.json or .gguf file",
            ));
        }
    };
    Ok((table, folder))
}

fn pickle(path: &Path) -> FormatError {
    FormatError::file(
        path,
        "is a pickle, which can run code when it is read, and is refused",
        "convert the checkpoint to safetensors",
    )
}

/// Looks where the Hugging Face libraries look, in their order: `model.safetensors`, its index,
/// then any index, then any safetensors files; then for GGUF files.
fn open_folder(folder: &Path) -> Result<TensorTable, FormatError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return TensorTable::new(vec![TensorFile::open(&single, parse)?]);
    }
    let entries = fs::read_dir(folder).map_err(|e| FormatError::io(folder, "list", e))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(|cause| FormatError::io(folder, "list", cause))?.path());
    }
    files.sort();
    let of_kind = |wanted: Kind| files.iter().filter(move |file| kind(file) == wanted);
    let indexes: Vec<&PathBuf> = of_kind(Kind::Index).collect();
    let standard = indexes.iter().find(|file| file.ends_with("model.safetensors.index.json"));
    match (standard, &indexes[..]) {
        (Some(index), _) | (None, [index]) => return open_index(index),
        (None, []) => {}
        (None, [one, two, ..]) => {
            return Err(FormatError::file(
                folder,
                format!("holds several indexes, {} and {}", file_name(one), file_name(two)),
                "name the index file to use",
            ));
        }
    }
    let shards: Vec<&PathBuf> = of_kind(Kind::Safetensors).collect();
    if !shards.is_empty() {
        let open = shards.into_iter().map(|file| TensorFile::open(file, parse));
        return TensorTable::new(open.collect::<Result<_, _>>()?);
    }
    let blocks: Vec<&PathBuf> = of_kind(Kind::Gguf).collect();
    if let [first, others @ ..] = &blocks[..] {
        return TensorTable::new(gguf::open(gguf::only(folder, first, others)?)?);
    }
    if let Some(file) = of_kind(Kind::Pickle).next() {
        return Err(pickle(file));
    }
    Err(FormatError::file(
        folder,
        "holds no checkpoint (no .safetensors or .gguf file)",
        "name the folder that holds model.safetensors",
    ))
}

fn file_name(path: &Path) -> String {
    shown(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// `*.safetensors.index.json`: which shard holds which tensor.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Shard file name by tensor name.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`weight_map` to be an object of file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                    if entries.contains_key(&tensor) {
                        let tensor = shown(&tensor);
                        return Err(A::Error::custom(format!("tensor `{tensor}` is listed twice")));
                    }
                    entries.insert(tensor, file);
                }
                Ok(WeightMap(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Opens every shard that the index names, and checks that each tensor is where the index says.
fn open_index(path: &Path) -> Result<TensorTable, FormatError> {
    let bad = |problem: String, remedy: &str| FormatError::file(path, problem, remedy);
    let Index { weight_map: WeightMap(map) } =
        serde_json::from_slice(&read_json(path)?).map_err(|e| {
            let problem = format!("is not a valid index: {}", shown(&e.to_string()));
            bad(problem, "download the index again")
        })?;
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let names: BTreeSet<&str> = map.values().map(String::as_str).collect();
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        if name.is_empty() || name.contains(['/', '\\', '\0']) || name.contains("..") {
            let problem = format!("names the shard `{}` outside its own folder", shown(name));
            return Err(bad(problem, "a shard must be a plain file name"));
        }
        let shard = folder.join(name);
        if kind(Path::new(name)) == Kind::Pickle {
            return Err(pickle(&shard));
        }
        if !shard.exists() {
            let problem = format!("names the shard `{}`, which is missing", shown(name));
            return Err(bad(problem, "download the missing file into the same folder"));
        }
        files.push(TensorFile::open(&shard, parse)?);
    }
    let table = TensorTable::new(files)?;
    for (tensor, shard) in &map {
        let holder = table.get(tensor).and_then(|found| found.path.file_name());
        if holder != Some(shard.as_ref()) {
            return Err(FormatError::Tensor {
                path: folder.join(shard),
                tensor: tensor.clone(),
                problem: format!("is not in the shard that {} names", file_name(path)),
                remedy: "index and shards belong to different downloads: fetch both again".into(),
            });
        }
    }
    Ok(table)
}

/// The bytes of a JSON file of reasonable size.
pub(crate) fn read_json(path: &Path) -> Result<Vec<u8>, FormatError> {
    let io = |cause| FormatError::io(path, "read", cause);
    let meta = fs::metadata(path).map_err(io)?;
    if !meta.is_file() || meta.len() > JSON_BYTES_MAX {
        let problem = format!("is not a JSON file of at most {JSON_BYTES_MAX} bytes");
        return Err(FormatError::file(path, problem, "replace it by the model's own file"));
    }
    fs::read(path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safetensors::write_f32;
    use proptest::prelude::*;
    use tempfile::TempDir;

    /// A folder with shards `1.safetensors` (tensor a) and `2.safetensors` (tensor b) and an index.
    fn sharded(index: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        write_f32(&folder.path().join("1.safetensors"), "a", 1, 2, &[1.0, 2.0]).unwrap();
        write_f32(&folder.path().join("2.safetensors"), "b", 1, 1, &[3.0]).unwrap();
        fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        folder
    }

    fn message(path: &Path) -> String {
        open(path).unwrap_err().to_string()
    }

    #[test]
    fn tensors_come_from_the_shards_that_the_index_names() {
        let folder = sharded(
            r#"{"metadata":{"total_size":1},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#,
        );
        let (table, _) = open(folder.path()).unwrap();
        assert_eq!(table.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(table.get("b").unwrap().bytes, 3.0f32.to_le_bytes());
        assert_eq!(table.paths().count(), 2);
    }

    #[test]
    fn shards_that_the_index_does_not_name_are_not_opened() {
        let folder = sharded(r#"{"weight_map":{"a":"1.safetensors"}}"#);
        fs::write(folder.path().join("2.safetensors"), "damaged").unwrap();
        assert_eq!(open(folder.path()).unwrap().0.names().count(), 1);
    }

    #[test]
    fn a_wrong_index_is_refused_with_the_part_that_is_wrong() {
        for (index, expected) in [
            (r#"{"weight_map":{"a":"../1.safetensors"}}"#, "outside its own folder"),
            (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "outside its own folder"),
            (r#"{"weight_map":{"a":"..\\1.safetensors"}}"#, "outside its own folder"),
            (r#"{"weight_map":{"a":""}}"#, "outside its own folder"),
            (r#"{"weight_map":{"a":"3.safetensors"}}"#, "`3.safetensors`, which is missing"),
            (r#"{"weight_map":{"a":"pytorch_model.bin"}}"#, "is a pickle"),
            (r#"{"weight_map":{"b":"1.safetensors"}}"#, "tensor `b`: is not in the shard"),
            (
                r#"{"weight_map":{"a":"2.safetensors","b":"1.safetensors"}}"#,
                "tensor `a`: is not in the shard",
            ),
            (
                r#"{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}"#,
                "tensor `a` is listed twice",
            ),
            (r#"{"weight_map":{"a":1}}"#, "not a valid index"),
            (r#"{}"#, "missing field `weight_map`"),
            ("{", "not a valid index"),
        ] {
            let message = message(sharded(index).path());
            assert!(message.contains(expected), "{index}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_tensor_in_two_shards_is_refused_with_both_files() {
        let folder = sharded(r#"{"weight_map":{"a":"1.safetensors","c":"2.safetensors"}}"#);
        write_f32(&folder.path().join("2.safetensors"), "a", 1, 1, &[3.0]).unwrap();
        let message = message(folder.path());
        assert!(message.contains("2.safetensors: tensor `a`: is also in"), "{message}");
        assert!(message.contains("1.safetensors"), "{message}");
    }

    #[test]
    fn folders_without_an_index_are_read_whole_and_a_single_model_file_wins() {
        let folder = sharded("");
        fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
        assert_eq!(open(folder.path()).unwrap().0.names().count(), 2);
        write_f32(&folder.path().join("model.safetensors"), "only", 1, 1, &[0.0]).unwrap();
        assert_eq!(open(folder.path()).unwrap().0.names().collect::<Vec<_>>(), ["only"]);
    }

    #[test]
    fn pickles_and_empty_folders_have_their_own_messages() {
        let folder = tempfile::tempdir().unwrap();
        assert!(message(folder.path()).contains("holds no checkpoint"));
        fs::write(folder.path().join("pytorch_model-00001-of-00002.bin"), "x").unwrap();
        assert!(message(folder.path()).contains("convert the checkpoint to safetensors"));
        assert!(message(&folder.path().join("none")).contains("check the path"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_index_gives_a_table_or_an_error(
            index in r#"\{"weight_map":\{("(a|b)":"[12./\\]{0,4}(safetensors)?",?){0,3}\}\}|.{0,60}"#,
        ) {
            let _ = open(sharded(&index).path());
        }
    }
}
