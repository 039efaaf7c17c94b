/** Completion for zsh: its `_arguments` gets each command's options and arguments with their descriptions. */
import { type CommandPage, type OptionPage, type ValueKind, withAllBelow } from './commands.ts';

export function zshCompletion(root: CommandPage): string {
  const [name] = root.path;
  return `#compdef ${name}
# Completion of ${name} for zsh. Made from the text of --help; see scripts/manual.
${withAllBelow(root).map(functionOf).join('\n')}
${functionName(root)} "$@"
`;
}

const functionName = (page: CommandPage): string => `_${page.path.join('_')}`;

function functionOf(page: CommandPage): string {
  return page.commands.length > 0 ? groupFunction(page) : leafFunction(page);
}

function leafFunction(page: CommandPage): string {
  const specs = [
    ...page.options.map(optionSpec),
    ...page.arguments.map(({ term }) => quoted(`*:${escaped(term)}:_files`)).slice(0, 1),
  ];
  return `${functionName(page)}() {
  _arguments -s -S \\
    ${specs.join(' \\\n    ')}
}`;
}

function groupFunction(page: CommandPage): string {
  const listed = page.commands.map(
    ({ path, description }) => `    ${quoted(`${path[path.length - 1]}:${escaped(description)}`)}`,
  );
  const cases = page.commands.map(
    (child) => `        ${child.path[child.path.length - 1]}) ${functionName(child)} ;;`,
  );
  return `${functionName(page)}() {
  local curcontext="$curcontext" state line
  local -A opt_args
  local -a commands=(
${listed.join('\n')}
  )
  _arguments -C \\
    ${page.options.map(optionSpec).join(' \\\n    ')} \\
    '1: :->command' \\
    '*:: :->rest'
  case $state in
    command) _describe command commands ;;
    rest)
      case $line[1] in
${cases.join('\n')}
      esac
      ;;
  esac
}`;
}

/** `(-c --config)'{-c,--config}'[description]:value:_files`: each option once. */
function optionSpec({ names, description, value }: OptionPage): string {
  const rest = `[${escaped(description)}]${value === null ? '' : `:value:${actionOf(value)}`}`;
  const spelled = names.map((name) =>
    value === null ? name : name.startsWith('--') ? `${name}=` : `${name}+`,
  );
  if (spelled.length === 1) return quoted(`${spelled[0]}${rest}`);
  return `${quoted(`(${names.join(' ')})`)}{${spelled.join(',')}}${quoted(rest)}`;
}

function actionOf(value: ValueKind): string {
  if (value === 'file') return '_files';
  if (value === 'folder') return '_files -/';
  return value === 'other' ? ' ' : `(${value.join(' ')})`;
}

const escaped = (words: string): string => words.replaceAll(/[[\]:\\]/g, (one) => `\\${one}`);
const quoted = (words: string): string => `'${words.replaceAll("'", `'\\''`)}'`;
