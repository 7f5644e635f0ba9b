# shellcheck shell=bash
# Parts of docs/benchmarks.md, each between the comments <!-- NAME --> and <!-- end of NAME -->; sourced, never run.

# put_part NAME FILE PAGE: the file becomes that part of the page; the other parts stay as they are
put_part() {
  local name=$1 file=$2 page=$3 written
  grep -qxF "<!-- end of $name -->" "$page" || die "$page has no part '$name'"
  written=$(mktemp)
  awk -v name="$name" -v file="$file" '
    $0 == "<!-- end of " name " -->" { is_old = 0 }
    !is_old { print }
    $0 == "<!-- " name " -->" { while ((getline line < file) > 0) print line; is_old = 1 }
  ' "$page" >"$written"
  cat "$written" >"$page"
  rm "$written"
}
