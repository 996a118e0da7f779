//! Loops that compilers vectorise, compiled for the vector instructions of the machine at hand.

/// Defines a function that calls another one as it is compiled for AVX2 where the CPU has it: an x86-64
/// program may otherwise use no more than SSE2. The other one is `#[inline(always)]`, as are those that it
/// calls in its loops: what is not inlined stays compiled as it is.
///
/// ```
/// #[inline(always)]
/// fn rotate(bytes: &mut [u8], by: u32) {
///     bytes.iter_mut().for_each(|byte| *byte = byte.rotate_left(by));
/// }
/// qtune_ir::vectorised!(fn rotate_fast(bytes: &mut [u8], by: u32) = rotate);
///
/// let mut bytes = [0x12, 0x34];
/// rotate_fast(&mut bytes, 4);
/// assert_eq!(bytes, [0x21, 0x43]);
/// ```
#[macro_export]
macro_rules! vectorised {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $of:ty),*) = $work:path) => {
        $(#[$doc])*
        $vis fn $name($($arg: $of),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn with_avx2($($arg: $of),*) {
                    $work($($arg),*)
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has what the function is compiled for.
                    return unsafe { with_avx2($($arg),*) };
                }
            }
            $work($($arg),*)
        }
    };
}
