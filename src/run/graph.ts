/**
 * Visits every key once those that it comes after have been visited; what is independent, side by side. The first visit
 * that rejects keeps others from being begun; those under way are awaited, then its error is thrown.
 * `after` may name keys that are not visited: they hold nothing up. Of a cycle one edge is left out.
 */
export async function walkGraph(
  after: ReadonlyMap<string, readonly string[]>,
  visit: (key: string) => Promise<void>,
): Promise<void> {
  const visits = new Map<string, Promise<void>>();
  const failures: unknown[] = [];
  const begin = (key: string, path: readonly string[]): Promise<void> => {
    const known = visits.get(key);
    if (known !== undefined) return known;
    const before = (after.get(key) ?? []).filter((other) => after.has(other) && !path.includes(other));
    const visited = Promise.all(before.map((other) => begin(other, [...path, key]))).then(async () => {
      if (failures.length > 0) return;
      await visit(key).catch((error) => void failures.push(error));
    });
    visits.set(key, visited);
    return visited;
  };
  await Promise.all([...after.keys()].map((key) => begin(key, [])));
  if (failures.length > 0) throw failures[0];
}

/** The same graph, walked the other way. */
export function reversed(after: ReadonlyMap<string, readonly string[]>): ReadonlyMap<string, readonly string[]> {
  const turned = new Map([...after.keys()].map((key): [string, string[]] => [key, []]));
  for (const [key, others] of after) for (const other of others) turned.get(other)?.push(key);
  return turned;
}
