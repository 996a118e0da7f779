#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: for a machine that has a GPU, a driver and a qtune
# binary, and neither Rust nor a CUDA toolkit.
#
#   bench/gpu.sh OUT_DIR [SECTION[=SECONDS]...]
#
# Sections, in order, with their time limits in seconds:
#
#   doctor=60     what the machine has
#   verify=180    every format and family on the GPU against the stored codes in f64
#   compare=180   the same kernels in the simulator; verdicts must agree
#   peers=180     PyTorch's fp16 and int4 matrix multiplies and one in Triton, where installed
#   tune=300      the preset's shapes, timed; cache and trial log stay in OUT_DIR/cache
#   report=60     OUT_DIR/report.html of what was tuned
#
# Without sections all run. A section that does not end in time is stopped, and the next one
# begins. OUT_DIR/summary.json says how each ended; the other files are the sections' own.
#
# Variables: QTUNE (the binary; default: qtune on the PATH), DEVICE (cuda:0), PRESET, FORMATS,
# TOKENS.
#
# Exit codes: 0 all sections passed, 1 some did not, 2 usage, 3 no GPU.

set -uo pipefail

QTUNE=${QTUNE:-qtune}
DEVICE=${DEVICE:-cuda:0}
PRESET=${PRESET:-qwen2.5-32b}
FORMATS=${FORMATS:-awq-g128 awq-g64 awq-g32 gptq-g128 gptq-g128-asym}
TOKENS=${TOKENS:-1,2,4,8,16,32,64}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ALL="doctor=60 verify=180 compare=180 peers=180 tune=300 report=60"

usage() {
  echo "error: $1; usage: bench/gpu.sh OUT_DIR [SECTION[=SECONDS]...], sections: ${ALL}" >&2
  exit 2
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

# One line of JSON for each format and size, on device $1; fails if a kernel is wrong.
verify_all() {
  local format size failed=0
  for format in $FORMATS; do
    for size in "4096 4096" "5120 27648" "1000 1024"; do
      read -r n k <<<"$size"
      "$QTUNE" verify --gpu auto --device "$1" --format "$format" --n "$n" --k "$k" \
        --m "$TOKENS" --json || failed=1
    done
  done
  return $failed
}

section_verify() {
  verify_all "$DEVICE" >"$OUT/verify.jsonl"
}

section_compare() {
  verify_all sim >"$OUT/verify-sim.jsonl"
  # A verdict is decided by arithmetic and addresses, which both devices share.
  diff <(grep -o '"passed":[a-z]*' "$OUT/verify.jsonl") \
    <(grep -o '"passed":[a-z]*' "$OUT/verify-sim.jsonl") >"$OUT/compare.diff"
}

section_peers() {
  if ! python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    echo '{"skipped": "PyTorch with CUDA is not installed"}' >"$OUT/peers.json"
    return 0
  fi
  python3 "$HERE/peers.py" >"$OUT/peers.json"
}

section_tune() {
  # What the search has by the end of the budget is kept and counts: exit code 6.
  "$QTUNE" tune --gpu auto --device "$DEVICE" --preset "$PRESET" --format awq-g128 \
    --m "$TOKENS" --budget "$((LIMIT > 60 ? LIMIT - 30 : LIMIT / 2))s" \
    --cache "$OUT/cache" --json >"$OUT/tune.json"
  local code=$?
  [ $code -eq 0 ] || [ $code -eq 6 ]
}

section_report() {
  "$QTUNE" report "$OUT/cache" --out "$OUT/report.html" --json >"$OUT/report.json"
}

# Runs section $1 for at most $2 seconds; its errors go to a log of its own.
run_section() {
  local name=$1 started=$SECONDS code
  LIMIT=$2
  export QTUNE DEVICE PRESET FORMATS TOKENS HERE OUT LIMIT
  export -f verify_all "section_$name"
  timeout --kill-after=10 "$LIMIT" bash -uo pipefail -c "section_$name" 2>"$OUT/$name.log"
  code=$?
  printf '{"section": "%s", "exit": %d, "seconds": %d, "limit": %d, "timed_out": %s}' \
    "$name" "$code" "$((SECONDS - started))" "$LIMIT" \
    "$([ $code -eq 124 ] || [ $code -eq 137 ] && echo true || echo false)"
  return $code
}

[ $# -ge 1 ] || usage "no OUT_DIR"
OUT=$1
shift
for word in "$@"; do
  default=$(limit_in "${word%%=*}" $ALL)
  [ -n "$default" ] || usage "there is no section \`${word%%=*}\`"
  case ${word#*=} in
    "$word" | *[!0-9]* | "") [ "$word" = "${word%%=*}" ] || usage "\`$word\` has no limit in seconds" ;;
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
elif [ $code -eq 127 ]; then
  usage "there is no \`$QTUNE\`; set QTUNE to the binary"
fi

failed=0
results=()
for entry in $ALL; do
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
  (IFS=,; printf '{"date": "%s", "sections": [%s]}\n' "$(date -u +%FT%TZ)" "${results[*]}") \
    >"$OUT/summary.json"
done
exit $failed
