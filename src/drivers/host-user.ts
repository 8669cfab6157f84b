import { readFile } from 'node:fs/promises';
import { OperationalError } from '../core/errors.ts';

/** Who a hook runs as, and what it finds in its environment for that. */
export type Identity = {
  readonly uid: number;
  readonly gid: number;
  readonly env: Readonly<Record<string, string>>;
};

type Files = { readonly passwd: string; readonly group: string };

/** The highest id that is one: the last means "leave it" to the kernel. */
const LARGEST_ID = 0xffff_fffe;

/**
 * Looks up `NAME`, `UID`, `NAME:GROUP`, `UID:GID`. Supplementary groups are given up: Node has no call for them, and
 * keeping the sidecar's own would be worse.
 * @throws OperationalError `configuration` for one that is unknown, or that we may not become
 */
export async function identityOf(user: string, files?: Files): Promise<Identity> {
  const { passwd, group } = files ?? { passwd: await read('/etc/passwd'), group: await read('/etc/group') };
  const [name = '', groupName, ...rest] = user.split(':');
  if (rest.length > 0 || name === '' || groupName === '')
    throw invalid(user, 'expected NAME, UID, NAME:GROUP or UID:GID');

  const account = find(passwd, name, 2);
  const uid = idOf(account?.[2] ?? name);
  if (uid === undefined) throw invalid(user, `no ${JSON.stringify(name)} in /etc/passwd`);
  const gid = idOf(groupName === undefined ? (account?.[3] ?? '') : (find(group, groupName, 2)?.[2] ?? groupName));
  if (gid === undefined) {
    throw invalid(
      user,
      groupName === undefined ? 'not in /etc/passwd, so say UID:GID' : `no group ${JSON.stringify(groupName)}`,
    );
  }

  const [ownUid, ownGid] = [process.getuid?.(), process.getgid?.()];
  if (ownUid !== 0 && (ownUid !== uid || ownGid !== gid))
    throw invalid(user, `only root may become another (we are ${ownUid})`);

  const login = account?.[0] ?? String(uid);
  return { uid, gid, env: { USER: login, LOGNAME: login, HOME: account?.[5] || '/' } };
}

/** A line of a colon-separated file by its name, else by its id. */
function find(text: string, wanted: string, idField: number): readonly string[] | undefined {
  const rows = text.split('\n').map((line) => line.split(':'));
  return rows.find(([name]) => name === wanted) ?? rows.find((row) => row[idField] === wanted);
}

function idOf(text: string): number | undefined {
  const id = /^\d{1,10}$/.test(text) ? Number(text) : undefined;
  return id !== undefined && id <= LARGEST_ID ? id : undefined;
}

function read(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}

function invalid(user: string, why: string): OperationalError {
  return new OperationalError('configuration', `user ${JSON.stringify(user)}: ${why}`);
}
