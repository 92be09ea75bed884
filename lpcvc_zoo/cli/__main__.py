from lpcvc_zoo.cli import main

main()
