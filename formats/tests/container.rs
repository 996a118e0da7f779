//! The strict reader against the reference implementation of safetensors.

mod support;

use proptest::prelude::*;
use qtune_formats::safetensors::parse;
use safetensors::{Dtype, SafeTensors};
use support::{filled, read, write, Tensors};

/// Checks that our reading of `bytes`, if they are accepted, is the reference's.
fn assert_agrees(bytes: &[u8]) {
    let Ok(header) = parse(bytes) else {
        return;
    };
    let reference = SafeTensors::deserialize(bytes).expect("the reference is no stricter");
    assert_eq!(header.tensors.len(), reference.len());
    for (name, entry) in &header.tensors {
        let view = reference.tensor(name).unwrap();
        assert_eq!(view.shape(), entry.shape);
        assert_eq!(view.data(), &bytes[entry.begin..entry.end]);
    }
}

fn tensors() -> impl Strategy<Value = Tensors> {
    let dtypes = vec![Dtype::U8, Dtype::F16, Dtype::I32, Dtype::F64, Dtype::BF16, Dtype::F8_E4M3];
    let shape = prop::collection::vec(0usize..5, 0..4);
    let tensor = (prop::sample::select(dtypes), shape, any::<u8>())
        .prop_map(|(dtype, shape, byte)| filled(dtype, &shape, byte));
    prop::collection::btree_map("[a-z.\"\\\\é]{1,6}", tensor, 0..6)
}

proptest! {
    #[test]
    fn files_of_the_reference_writer_are_accepted_and_read_the_same(tensors in tensors()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write(&path, &tensors);
        let bytes = std::fs::read(&path).unwrap();
        prop_assert_eq!(parse(&bytes).unwrap().tensors.len(), read(&path).len());
        assert_agrees(&bytes);
    }

    #[test]
    fn damaged_files_are_never_read_differently(
        tensors in tensors(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write(&path, &tensors);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, to) in flips {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        assert_agrees(&bytes);
    }
}
