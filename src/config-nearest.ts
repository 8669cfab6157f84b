/** `; the nearest known one is hooks.dir`, for what is probably a slip of the finger. */
export function nearestTo(name: string, known: readonly string[]): string {
  const near = known
    .map((candidate) => ({ candidate, distance: distanceOf(name.toLowerCase(), candidate.toLowerCase()) }))
    .toSorted((a, b) => a.distance - b.distance)[0];
  return near === undefined ? '' : `; the nearest known one is ${near.candidate}`;
}

/** How many characters to insert, delete or replace to make one text of the other (Levenshtein). */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (const [index, charOfA] of [...a].entries()) {
    const next = [index + 1];
    for (const [column, charOfB] of [...b].entries()) {
      const replaced = (row[column] ?? 0) + (charOfA === charOfB ? 0 : 1);
      next.push(Math.min(replaced, (row[column + 1] ?? 0) + 1, (next[column] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? b.length;
}
