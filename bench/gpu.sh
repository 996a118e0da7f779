#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: for a machine that has a GPU, a driver and a qtune
# binary, and neither Rust nor a CUDA toolkit.
#
#   bench/gpu.sh OUT_DIR [SECTION[=SECONDS]...]
#
# Sections, in order, with their time limits in seconds:
#
#   doctor=60     what the machine has
#   verify=240    every format and family on the GPU against the stored codes in f64
#   library=120   the dequant family with cuBLASLt as what multiplies, against the stored codes; skipped where
#                 the machine has no libcublasLt
#   compare=180   the same kernels in the simulator; verdicts must agree
#   peers=180     PyTorch's fp16 and int4 matrix multiplies and one in Triton, where installed
#   tune=300      the preset's shapes, timed; cache and trial log stay in OUT_DIR/cache
#   report=60     OUT_DIR/report.html of what was tuned
#
# Without sections all run. A section that does not end in time is stopped, and the next one
# begins; what it has found by then stays, and formats that it did not come to are named in its log. OUT_DIR/summary.json says how each ended, with driver, clocks and power before and after where
# nvidia-smi is; the other files are the sections' own. OUT_DIR as bench/results/<gpu> is what
# `cargo run -p xtask -- docs` puts into docs/benchmarks.md.
#
# Variables: QTUNE (the binary; default: qtune on the PATH), DEVICE (cuda:0), PRESET, FORMATS, JOBS
# (formats verified at a time), TOKENS (token counts that are tuned), VERIFY_TOKENS.
#
# Exit codes: 0 all sections passed, 1 some did not, 2 usage, 3 no GPU.

# Sections and what they consist of are called by name.
# shellcheck disable=SC2329

set -uo pipefail

QTUNE=${QTUNE:-qtune}
DEVICE=${DEVICE:-cuda:0}
PRESET=${PRESET:-qwen2.5-32b}
FORMATS=${FORMATS:-awq-g128 awq-g32 gptq-g128 gptq-g128-asym gptq-g128-actorder gptq-w2-g128 gptq-w3-g128 gptq-w8-g128 \
  int4-g128 int8-ch int3-g128 fp8-e4m3-g128 fp8-e4m3-ch mxfp8-b32 nvfp4-b16 bnb8-ch hqq-g64 torchao-int4-g128 \
  nf4-b64 fp4-b64 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs mxfp4-b32 \
  int8-ch-a8 fp8-e4m3-ch-a8 aqlm-2x8 aqlm-1x16 quip-e8p}
JOBS=${JOBS:-8}
TOKENS=${TOKENS:-1,2,4,8,16,32,64}
VERIFY_TOKENS=${VERIFY_TOKENS:-1,2,3,8,13,16,17,33,64,118,257,768}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ALL=(doctor=60 verify=240 library=120 compare=180 peers=180 tune=300 report=60)

usage() {
  echo "error: $1; usage: bench/gpu.sh OUT_DIR [SECTION[=SECONDS]...], sections: ${ALL[*]}" >&2
  exit 2
}

# Driver, clocks and power as one JSON object, empty where nvidia-smi does not tell.
conditions() {
  local gpu=0 fields driver sm top memory watts
  [ "${DEVICE#cuda:}" = "$DEVICE" ] || gpu=${DEVICE#cuda:}
  fields=driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw
  IFS=', ' read -r driver sm top memory watts < <(nvidia-smi -i "$gpu" \
    --query-gpu="$fields" --format=csv,noheader,nounits 2>/dev/null) || true
  [ -n "${watts:-}" ] || { echo '{}'; return; }
  printf '{"driver": "%s", "sm_mhz": "%s", "max_sm_mhz": "%s", "memory_mhz": "%s", "watts": "%s"}' \
    "$driver" "$sm" "$top" "$memory" "$watts"
}

# The limit of section $1 in the words after it; nothing if it is not among them.
limit_in() {
  local wanted=$1 word
  shift
  for word in "$@"; do
    [ "${word%%=*}" = "$wanted" ] && { echo "${word#*=}"; return; }
  done
}

section_doctor() {
  # Findings are what it is for: that some are errors does not fail the section.
  "$QTUNE" doctor --json >"$OUT/doctor.json" || test -s "$OUT/doctor.json"
}

# One line of JSON for each size of format $2, on device $1; fails if a kernel is wrong.
verify_format() {
  local size failed=0 odd="1000 1024"
  # Rotations are of powers of two.
  case $2 in quip-*) odd="512 1024" ;; esac
  for size in "4096 4096" "$odd"; do
    read -r n k <<<"$size"
    "$QTUNE" verify --gpu auto --device "$1" --format "$2" --n "$n" --k "$k" \
      --m "$VERIFY_TOKENS" --json || failed=1
  done
  return "$failed"
}

# All formats, several at a time, since most of the time goes into compiles; each writes a file of
# its own, so that lines do not mix and the order is the same on every device. $3 verifies one.
verify_all() {
  local device=$1 parts=$2 verify=${3:-verify_format} format
  rm -rf "$parts" && mkdir -p "$parts"
  # shellcheck disable=SC2016
  for format in $FORMATS; do echo "$format"; done | xargs -P "$JOBS" -I{} \
    bash -c '"$1" "$2" "$3" >"$4/$3.jsonl"' bash "$verify" "$device" {} "$parts"
}

# The lines of all formats that were verified in folder $1, in one file beside it.
collect() {
  local format
  for format in $FORMATS; do
    if [ -s "$1/$format.jsonl" ]; then cat "$1/$format.jsonl"; else echo "not verified: $format" >&2; fi
  done >"$1.jsonl"
}

section_verify() {
  verify_all "$DEVICE" "$OUT/verify"
}

collect_verify() {
  collect "$OUT/verify"
}

# The same of format $2 with cuBLASLt as what multiplies; codes that are multiplied as they are have no slabs.
library_format() {
  case $2 in *-a8) return 0 ;; esac
  "$QTUNE" verify --gpu auto --device "$1" --format "$2" --n 1024 --k 1024 --m 1,17,257,768 \
    --library --json
}

section_library() {
  rm -rf "$OUT/library"
  if ! grep -q '"id":"library.found","severity":"ok"' <("$QTUNE" doctor --json); then
    echo '{"skipped": "the machine has no cuBLASLt"}' >"$OUT/library.jsonl"
    return 0
  fi
  verify_all "$DEVICE" "$OUT/library" library_format
}

collect_library() {
  [ ! -d "$OUT/library" ] || collect "$OUT/library"
}

section_compare() {
  [ -s "$OUT/verify.jsonl" ] || { echo "the section verify left nothing to compare with" >&2; return 1; }
  # Wrong kernels are found by the comparison, and the device has told them.
  verify_all sim "$OUT/verify-sim" || true
}

# A verdict is decided by arithmetic and addresses, which both devices share. Compared is what both
# came to: so many lines of each format as both have.
collect_compare() {
  local format device sim lines=0 failed=0
  [ -d "$OUT/verify-sim" ] || return 1
  collect "$OUT/verify-sim"
  for format in $FORMATS; do
    device=$OUT/verify/$format.jsonl sim=$OUT/verify-sim/$format.jsonl
    [ -s "$device" ] && [ -s "$sim" ] || continue
    lines=$(wc -l <"$device")
    [ "$(wc -l <"$sim")" -ge "$lines" ] || lines=$(wc -l <"$sim")
    diff --label "$format on $DEVICE" --label "$format in the simulator" -u \
      <(head -n "$lines" "$device" | grep -o '"passed":[a-z]*') \
      <(head -n "$lines" "$sim" | grep -o '"passed":[a-z]*') || failed=1
  done >"$OUT/compare.diff"
  [ "$failed" -eq 0 ] && [ "$lines" -gt 0 ]
}

section_peers() {
  if ! python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    echo '{"skipped": "PyTorch with CUDA is not installed"}' >"$OUT/peers.json"
    return 0
  fi
  python3 "$HERE/peers.py" "$OUT/peers.json"
}

section_tune() {
  # What the search has by the end of the budget is kept and counts: exit code 6.
  "$QTUNE" tune --gpu auto --device "$DEVICE" --preset "$PRESET" --format awq-g128 \
    --m "$TOKENS" --budget "$((LIMIT > 60 ? LIMIT - 30 : LIMIT / 2))s" \
    --cache "$OUT/cache" --json >"$OUT/tune.json"
  local code=$?
  [ "$code" -eq 0 ] || [ "$code" -eq 6 ]
}

section_report() {
  "$QTUNE" report "$OUT/cache" --out "$OUT/report.html" --json >"$OUT/report.json"
}

# Runs section $1 for at most $2 seconds, then collects what it left, in time or not; its errors go to
# a log of its own.
run_section() {
  local name=$1 started=$SECONDS code
  LIMIT=$2
  export QTUNE DEVICE PRESET FORMATS JOBS TOKENS VERIFY_TOKENS HERE OUT LIMIT
  export -f verify_format library_format verify_all "section_$name"
  timeout --kill-after=10 "$LIMIT" bash -uo pipefail -c "section_$name" 2>"$OUT/$name.log"
  code=$?
  if declare -F "collect_$name" >/dev/null; then
    "collect_$name" 2>>"$OUT/$name.log" || [ $code -ne 0 ] || code=1
  fi
  printf '{"section": "%s", "exit": %d, "seconds": %d, "limit": %d, "timed_out": %s}' \
    "$name" "$code" "$((SECONDS - started))" "$LIMIT" \
    "$([ $code -eq 124 ] || [ $code -eq 137 ] && echo true || echo false)"
  return $code
}

[ $# -ge 1 ] || usage "no OUT_DIR"
case $1 in
  -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  -*) usage "\`$1\` is no folder" ;;
esac
OUT=$1
shift
for word in "$@"; do
  default=$(limit_in "${word%%=*}" "${ALL[@]}")
  [ -n "$default" ] || usage "there is no section \`${word%%=*}\`"
  case ${word#*=} in
    "$word" | *[!0-9]* | "" | 0*) [ "$word" = "${word%%=*}" ] || usage "\`$word\` has no limit in seconds" ;;
  esac
done
mkdir -p "$OUT" || exit 1
OUT=$(cd "$OUT" && pwd)

"$QTUNE" verify --gpu auto --device "$DEVICE" --format awq-g128 --n 64 --k 128 --m 1 \
  >/dev/null 2>"$OUT/first-launch.log"
code=$?
if [ $code -eq 3 ]; then
  echo "no GPU: $(tail -n 1 "$OUT/first-launch.log")" >&2
  exit 3
elif [ $code -eq 126 ] || [ $code -eq 127 ]; then
  usage "\`$QTUNE\` cannot be run; set QTUNE to the binary"
fi

failed=0
results=()
before=$(conditions)
for entry in "${ALL[@]}"; do
  name=${entry%%=*}
  limit=${entry#*=}
  if [ $# -gt 0 ]; then
    asked=$(limit_in "$name" "$@")
    [ -n "$asked" ] || continue
    [ "$asked" = "$name" ] || limit=$asked
  fi
  echo "$name, at most $limit s" >&2
  result=$(run_section "$name" "$limit") || failed=1
  echo "  $result" >&2
  results+=("$result")
  (IFS=,; printf '{"date": "%s", "before": %s, "after": %s, "sections": [%s]}\n' \
    "$(date -u +%FT%TZ)" "$before" "$(conditions)" "${results[*]}") \
    >"$OUT/summary.json"
done
exit $failed
